from __future__ import annotations

from typing import Any

from tests.contract.probes import Probe


class Asyncio(Probe):
    makes_spans = False

    def open(self, server: Any) -> Any:
        import asyncio

        return asyncio.new_event_loop()

    def close(self, loop: Any) -> None:
        if not loop.is_closed():
            loop.run_until_complete(loop.shutdown_default_executor())
            loop.close()

    def operate(self, loop: Any) -> Any:
        import asyncio

        argument = object()

        async def answer() -> Any:
            return argument

        async def main() -> Any:
            future = loop.run_in_executor(None, lambda given: given, argument)
            task = asyncio.create_task(answer(), name="answering")
            found = await future, await task, await asyncio.wait_for(answer(), 60), *await asyncio.gather(answer())
            done, pending = await asyncio.wait([asyncio.ensure_future(answer())])
            thread = await asyncio.to_thread(answer)
            return (
                [item is argument for item in found],
                task.get_name(),
                len(done),
                len(pending),
                await thread is argument,
            )

        return loop.run_until_complete(main())

    def fail(self, loop: Any, error: Exception) -> None:
        def broken() -> None:
            raise error

        async def main() -> None:
            await loop.run_in_executor(None, broken)

        loop.run_until_complete(main())
