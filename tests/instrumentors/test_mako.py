"""Mako from 0.8 to the newest: every way of rendering is one span, with the template's name and nothing else."""

from __future__ import annotations

import io
import warnings
from typing import TYPE_CHECKING, Any

import pytest

with warnings.catch_warnings():  # old versions import `imp`
    warnings.simplefilter("ignore", DeprecationWarning)
    pytest.importorskip("mako.lookup")

from mako.lookup import TemplateLookup
from mako.runtime import Context
from mako.template import Template

from spanbridge.instrumentors.mako import MakoInstrumentor

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from spanbridge.testing import Payload, Spans

PAGE = "<%inherit file='base.html'/><%def name='shout()'>${secret}!</%def><%include file='part.html'/>${shout()}"


@pytest.fixture(autouse=True)
def instrumented(spans: Spans) -> Iterator[None]:
    MakoInstrumentor().instrument()
    yield
    MakoInstrumentor().uninstrument()


@pytest.fixture
def page(tmp_path: Path) -> Any:
    for name, text in {"page.html": PAGE, "base.html": "<${self.body()}>", "part.html": "part "}.items():
        (tmp_path / name).write_text(text)
    return TemplateLookup([str(tmp_path)]).get_template("page.html")


def named(name: str) -> dict[str, str]:
    return {"mako.template_name": name}


def test_ways_of_rendering(spans: Spans, page: Any, payload: Payload) -> None:
    assert page.render(secret="hunter2") == page.render_unicode(secret="hunter2") == "<part hunter2!>"
    page.render_context(Context(written := io.StringIO(), secret="hunter2"))
    assert "hunter2" in written.getvalue()
    names = [f"mako.template.{method}" for method in ("render", "render_unicode", "render_context")]
    assert [(span["name"], span["attributes"]) for span in spans] == [(name, named(page.filename)) for name in names]
    mapped = [row for (row,) in payload()]
    assert [row["name"] for row in mapped] == names
    assert {(row["resource"], row["type"]) for row in mapped} == {(page.filename, "template")}


def test_a_def(spans: Spans, page: Any) -> None:
    assert page.get_def("shout").render(secret="x") == "x!"
    in_memory = Template("<%def name='shout()'>x!</%def>")
    assert in_memory.get_def("shout").render_unicode() == "x!"
    assert [(span["name"], span["attributes"]) for span in spans] == [
        ("mako.template.render", named("page_html.render_shout")),
        ("mako.template.render_unicode", named("<memory>.render_shout")),
    ]


def test_a_template_that_fails(spans: Spans) -> None:
    with pytest.raises(ZeroDivisionError):
        Template("${1 / 0}").render()
    (span,) = spans
    assert (span["status"], span["attributes"]) == ("ERROR", {**named("<memory>"), "error.type": "ZeroDivisionError"})
