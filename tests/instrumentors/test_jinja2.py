"""Jinja2 from 2.10.2 to the newest: every way of rendering is one span, with the template's name and nothing else."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry import trace

jinja2 = pytest.importorskip("jinja2")

from spanbridge.instrumentors.jinja2 import Jinja2Instrumentor  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from spanbridge.testing import Payload, Spans

PAGES = {
    "page.html": "{% extends 'base.html' %}{% block body %}{{ secret }}{% endblock %}",
    "base.html": "<{% block body %}{% endblock %}>",
}
WAYS: dict[str, Callable[[Any], str]] = {
    "render": lambda page: page.render(secret="hunter2"),
    "generate": lambda page: "".join(page.generate(secret="hunter2")),
    "stream": lambda page: "".join(page.stream({"secret": "hunter2"})),
}


@pytest.fixture(autouse=True)
def instrumented(spans: Spans) -> Iterator[None]:
    Jinja2Instrumentor().instrument()
    yield
    Jinja2Instrumentor().uninstrument()


def environment(**options: Any) -> Any:
    return jinja2.Environment(loader=jinja2.DictLoader(PAGES), autoescape=True, **options)


def summary(spans: Spans) -> list[tuple[str, Any, str | None]]:
    return [(span["name"], span["attributes"], span["parent"]) for span in spans]


@pytest.mark.parametrize("way", WAYS)
def test_ways_of_rendering(spans: Spans, way: str, payload: Payload) -> None:
    assert WAYS[way](environment().get_template("page.html")) == "<hunter2>"
    assert summary(spans) == [("jinja2.render", {"jinja2.template_name": "page.html"}, None)]
    ((mapped,),) = payload()
    assert (mapped["name"], mapped["resource"], mapped["type"]) == ("jinja2.render", "page.html", "template")


@pytest.mark.skipif(not hasattr(jinja2.Template, "render_async"), reason="async came with Jinja2 2.9")
@pytest.mark.filterwarnings("ignore:There is no current event loop:DeprecationWarning")
def test_ways_of_rendering_in_an_async_environment(spans: Spans) -> None:
    page = environment(enable_async=True).get_template("page.html")

    async def render() -> list[str]:
        return [await page.render_async(secret="x"), "".join([part async for part in page.generate_async(secret="x")])]

    assert asyncio.run(render()) == ["<x>", "<x>"]
    assert summary(spans) == [("jinja2.render", {"jinja2.template_name": "page.html"}, None)] * 2
    spans.clear()
    asyncio.set_event_loop(loop := asyncio.new_event_loop())  # before 3.0 the plain methods take the thread's loop
    try:
        assert [WAYS[way](page) for way in ("render", "generate")] == ["<hunter2>"] * 2
    finally:
        asyncio.set_event_loop(None)
        loop.close()
    assert summary(spans) == [("jinja2.render", {"jinja2.template_name": "page.html"}, None)] * 2


def test_a_stream_belongs_to_the_span_that_it_was_made_in(spans: Spans) -> None:
    with trace.get_tracer("application").start_as_current_span("request"):
        stream = environment().get_template("page.html").generate(secret="x")
    assert "".join(stream) == "<x>"
    assert [(span["name"], span["parent"]) for span in spans] == [("request", None), ("jinja2.render", "request")]


def test_a_template_without_a_name(spans: Spans) -> None:
    assert jinja2.Template("{{ 1 + 1 }}").render() == "2"
    assert summary(spans) == [("jinja2.render", {"jinja2.template_name": "<memory>"}, None)]


@pytest.mark.parametrize("way", WAYS)
def test_a_template_that_fails(spans: Spans, way: str) -> None:
    with pytest.raises(ZeroDivisionError):
        WAYS[way](jinja2.Template("{{ 1 / 0 }}"))
    assert [(span["status"], span["attributes"]["error.type"]) for span in spans] == [("ERROR", "ZeroDivisionError")]


def test_templates_rendered_by_a_template(spans: Spans) -> None:
    inner = environment().get_template("base.html")
    jinja2.Template("{{ inner.render() }}").render(inner=inner)
    assert [(span["attributes"]["jinja2.template_name"], span["parent"]) for span in spans] == [
        ("base.html", "jinja2.render"),
        ("<memory>", None),
    ]


def test_loading_and_compiling_on_demand(spans: Spans, payload: Payload, tmp_path: Any) -> None:
    Jinja2Instrumentor().uninstrument()
    Jinja2Instrumentor().instrument(trace_loading=True)
    page = tmp_path / "page.html"
    page.write_text("x")
    jinja2.Environment(loader=jinja2.FileSystemLoader(str(tmp_path)), autoescape=True).get_template("page.html")
    name = {"jinja2.template_name": "page.html"}
    assert summary(spans) == [
        ("jinja2.compile", name, "jinja2.load"),
        ("jinja2.load", {**name, "jinja2.template_path": str(page)}, None),
    ]
    assert [row["name"] for chunk in payload() for row in chunk] == ["jinja2.load", "jinja2.compile"]
    with pytest.raises(jinja2.TemplateNotFound):
        environment().get_template("absent.html")
    assert (spans[-1]["name"], spans[-1]["status"]) == ("jinja2.load", "ERROR")


def test_contrib_traces_loading_and_compiling(spans: Spans, monkeypatch: pytest.MonkeyPatch) -> None:
    Jinja2Instrumentor().uninstrument()
    monkeypatch.setenv("SPANBRIDGE_SEMCONV", "contrib")
    Jinja2Instrumentor().instrument()
    environment().get_template("base.html").render()
    assert [span["name"] for span in spans] == ["jinja2.compile", "jinja2.load", "jinja2.render"]
