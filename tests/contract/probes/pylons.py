from __future__ import annotations

from typing import Any

from tests.contract.probes import Probe


class Pylons(Probe):
    def open(self, server: Any) -> Any:
        from tests.pylons_project import WSGIController, make_app

        probe = self

        class Items(WSGIController):  # type: ignore[misc]
            def show(self, item: str) -> str:
                return f"item {item}"

            def broken(self) -> None:
                raise probe.error

        return make_app({"items": Items}, ("/items/{item}", "items", "show"), ("/broken", "items", "broken"))

    def operate(self, app: Any) -> Any:
        from tests.web import visit

        return visit(app, "/items/7")

    def fail(self, app: Any, error: Exception) -> None:
        from tests.web import visit

        self.error = error
        visit(app, "/broken")
