from __future__ import annotations

from typing import Any

from tests.contract.probes import Probe


class Molten(Probe):
    def open(self, server: Any) -> Any:
        import molten

        def show(item: int) -> str:
            return f"item {item}"

        def broken() -> None:
            raise self.error

        class App(molten.App):  # type: ignore[misc]
            def handle_exception(self, exception: BaseException) -> Any:
                raise exception

        # Names of types, as the annotations of this module are, mean nothing to its dependencies.
        show.__annotations__, broken.__annotations__ = {"item": int, "return": str}, {"return": str}
        App.handle_exception.__annotations__ = {"exception": BaseException, "return": molten.Response}
        return App([molten.Route("/items/{item}", show), molten.Route("/broken", broken)])

    def operate(self, app: Any) -> Any:
        from tests.web import visit

        return visit(app, "/items/7")

    def fail(self, app: Any, error: Exception) -> None:
        from tests.web import visit

        self.error = error
        visit(app, "/broken")
