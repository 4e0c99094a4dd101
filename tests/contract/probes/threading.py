from __future__ import annotations

from typing import Any

from tests.contract.probes import Probe


class Threading(Probe):
    makes_spans = False

    def open(self, server: Any) -> Any:
        import threading

        class Caught(threading.Thread):
            error: Exception | None = None
            raised: BaseException | None = None

            def run(self) -> None:
                try:
                    if self.error is not None:
                        raise self.error
                    self.attributes = sorted(vars(self))
                except Exception as error:
                    self.raised = error

        return Caught()

    def close(self, thread: Any) -> None:
        if thread.ident is None:
            thread.start()
        thread.join(60)

    def operate(self, thread: Any) -> Any:
        again = type(thread)()
        again.start()
        again.join(60)
        return again.attributes, sorted(vars(again)), again.is_alive()

    def fail(self, thread: Any, error: Exception) -> None:
        thread.error = error
        thread.start()
        thread.join(60)
        raise thread.raised
