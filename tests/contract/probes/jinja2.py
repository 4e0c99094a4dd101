from __future__ import annotations

from typing import Any

from tests.contract.probes import Probe


class Jinja2(Probe):
    def open(self, server: Any) -> Any:
        import jinja2

        return jinja2.Environment(autoescape=True).from_string("Hello {{ name() }}!")

    def operate(self, template: Any) -> Any:
        return template.render(name=lambda: "World"), list(template.generate({"name": lambda: "World"}))

    def fail(self, template: Any, error: Exception) -> None:
        def name() -> str:
            raise error

        template.render(name=name)
