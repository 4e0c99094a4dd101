from __future__ import annotations

from typing import Any

from tests.contract.probes import Probe


class Futures(Probe):
    makes_spans = False

    def open(self, server: Any) -> Any:
        from concurrent.futures import ThreadPoolExecutor

        return ThreadPoolExecutor(1)

    def close(self, executor: Any) -> None:
        executor.shutdown()

    def operate(self, executor: Any) -> Any:
        from multiprocessing.pool import ThreadPool

        argument = object()
        future = executor.submit(lambda *args, **kwargs: (args, kwargs), argument, key=argument)
        called: list[Any] = []
        future.add_done_callback(called.append)
        args, kwargs = future.result(60)
        with ThreadPool(1) as pool:
            answers = pool.map(str, [1, 2]), pool.apply_async(func=str, args=(3,)).get(60)
        # Until the worker has done something else, it may not have come to the callback.
        executor.submit(id, None).result(60)
        return args[0] is argument, kwargs["key"] is argument, called == [future], answers

    def fail(self, executor: Any, error: Exception) -> None:
        def broken() -> None:
            raise error

        executor.submit(broken).result(60)
