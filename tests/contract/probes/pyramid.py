from __future__ import annotations

from typing import Any

from tests.contract.probes import Probe


class Pyramid(Probe):
    def open(self, server: Any) -> Any:
        from pyramid.config import Configurator
        from pyramid.response import Response

        def broken(request: Any) -> None:
            raise self.error

        config = Configurator()
        config.add_route("item", "/items/{item}")
        config.add_route("broken", "/broken")
        config.add_view(lambda request: Response(f"item {request.matchdict['item']}"), route_name="item")
        config.add_view(broken, route_name="broken")
        return config.make_wsgi_app()

    def operate(self, app: Any) -> Any:
        from tests.web import visit

        return visit(app, "/items/7")

    def fail(self, app: Any, error: Exception) -> None:
        from tests.web import visit

        self.error = error
        visit(app, "/broken")
