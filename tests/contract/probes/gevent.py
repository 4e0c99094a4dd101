from __future__ import annotations

from typing import Any

from tests.contract.probes import Probe


class Gevent(Probe):
    makes_spans = False

    def open(self, server: Any) -> Any:
        import gevent.pool

        return gevent.pool.Pool(2)

    def close(self, pool: Any) -> None:
        pool.kill()

    def operate(self, pool: Any) -> Any:
        import gevent

        def work(given: Any) -> Any:
            return given

        argument = object()
        greenlets = gevent.spawn(work, argument), gevent.spawn_later(0, work, argument), pool.spawn(work, argument)
        answers = [greenlet.get(timeout=60) is argument for greenlet in greenlets]
        ran: list[Any] = []
        gevent.spawn_raw(ran.append, argument)
        mapped = pool.map(work, [1, 2]), list(pool.imap(work, [1, 2])), gevent.get_hub().threadpool.apply(work, (3,))
        return answers, mapped, ran == [argument], [type(greenlet).__name__ for greenlet in greenlets]

    def fail(self, pool: Any, error: Exception) -> None:
        import gevent

        def broken() -> None:
            raise error

        gevent.get_hub().exception_stream = None
        gevent.spawn(broken).get(timeout=60)
