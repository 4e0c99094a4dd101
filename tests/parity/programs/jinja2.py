# /// script
# dependencies = ["jinja2==3.1.6"]
# [[tool.parity.differences]]
# reason = "loading and compiling are details, made on request"
# side = "ddtrace"
# pattern = "jinja2\\.(load|compile)"
# [[tool.parity.differences]]
# reason = "rendering in an async environment is traced as well"
# side = "spanbridge"
# pattern = "async\\.html"
# ///
"""Every way of rendering, of templates with and without a name, plain and async, and one that fails."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import jinja2

PAGES = {"page.html": "{% include 'part.html' %} {{ x }}", "part.html": "part", "async.html": "{{ x }}"}
environment = jinja2.Environment(loader=jinja2.DictLoader(PAGES), autoescape=True)
page = environment.get_template("page.html")
print(page.render(x=1), "".join(page.generate(x=2)), "".join(page.stream(x=3)))
print(environment.from_string("{{ 1 + 1 }}").render())
with suppress(ZeroDivisionError):
    environment.from_string("{{ 1 / 0 }}").render()
later = jinja2.Environment(loader=jinja2.DictLoader(PAGES), autoescape=True, enable_async=True)
print(asyncio.run(later.get_template("async.html").render_async(x=1)))
