from __future__ import annotations

from typing import Any

from tests.contract.probes import Probe


class Celery(Probe):
    def open(self, server: Any) -> Any:
        import celery

        assert celery.current_app.main  # made when it is first looked at, which the contract's snapshots do
        app = celery.Celery("shop", broker="memory://localhost", set_as_current=False)

        @app.task(name="shop.add", shared=False)
        def add(x: int, y: int) -> int:
            return x + y

        @app.task(name="shop.broken", shared=False)
        def broken() -> None:
            raise app.error

        app.control.purge()
        return app

    def close(self, app: Any) -> None:
        app.close()

    def operate(self, app: Any) -> Any:
        result = app.tasks["shop.add"].apply_async((1, 2), headers={"own": "header"})
        with app.connection_for_read() as connection:
            self.message = connection.default_channel.basic_get("celery")
        headers = self.message.headers
        return type(result).__name__, headers["id"] == result.id, headers["own"], self.message.payload

    def fail(self, app: Any, error: Exception) -> None:
        app.error = error
        app.tasks["shop.broken"].apply(throw=True)

    def sent(self, app: Any) -> Any:
        return self.message.headers
