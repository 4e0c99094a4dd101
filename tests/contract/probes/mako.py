from __future__ import annotations

from typing import Any

from tests.contract.probes import Probe


class Mako(Probe):
    def open(self, server: Any) -> Any:
        from mako.template import Template

        return Template("Hello ${name()}!")

    def operate(self, template: Any) -> Any:
        return template.render(name=lambda: "World"), template.render_unicode(name=lambda: "World")

    def fail(self, template: Any, error: Exception) -> None:
        def name() -> str:
            raise error

        template.render(name=name)
