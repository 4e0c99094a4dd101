from __future__ import annotations

from typing import Any

from tests.contract.probes import Probe


class Requests(Probe):
    def open(self, server: Any) -> Any:
        import requests
        from requests.adapters import BaseAdapter

        class Canned(BaseAdapter):
            error: Exception | None = None

            def send(self, request: Any, **kwargs: Any) -> Any:
                self.request, self.response = request, requests.Response()
                self.response.status_code = 200
                self.response.request = request
                if self.error is not None:
                    raise self.error
                return self.response

            def close(self) -> None: ...

        session = requests.Session()
        session.mount("http://shop", Canned())
        return session

    def close(self, session: Any) -> None:
        session.close()

    def operate(self, session: Any) -> Any:
        response = session.get("http://shop/items?page=2")
        adapter = session.get_adapter("http://shop")
        return response is adapter.response, response.request is adapter.request, type(response), adapter.request.url

    def fail(self, session: Any, error: Exception) -> None:
        session.get_adapter("http://shop").error = error
        session.get("http://shop/items")

    def sent(self, session: Any) -> Any:
        return session.get_adapter("http://shop").request.headers
