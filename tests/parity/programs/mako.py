# /// script
# dependencies = ["mako==1.4.3"]
# [[tool.parity.differences]]
# reason = "no addresses of memory in names"
# side = "ddtrace"
# pattern = "memory:0x[0-9a-f]+"
# replacement = "<memory>"
# ///
"""Every way of rendering, of templates with and without a file, of a def, and one that fails."""

from __future__ import annotations

import io
from contextlib import suppress

from mako.runtime import Context
from mako.template import Template

page = Template("<%def name='shout()'>${x}!</%def>${x}")
print(page.render(x=1), page.render_unicode(x=2), page.get_def("shout").render(x=3))
page.render_context(Context(io.StringIO(), x=4))
with suppress(ZeroDivisionError):
    Template("${1 / 0}").render()
