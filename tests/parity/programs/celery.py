# /// script
# dependencies = ["celery==5.7.0", "redis==8.1.0", "packaging"]
# [tool.parity]
# servers = ["redis"]
# variables = { DD_CELERY_DISTRIBUTED_TRACING = "true", DD_TRACE_REDIS_ENABLED = "false" }
# ///
"""A celery worker over Redis, prefork with one child, and all ways to send it tasks."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

from celery import Celery, Task, chain, chord, group
from celery.exceptions import Ignore, Reject, Retry

URL = f"redis://127.0.0.1:{os.environ['REDIS_PORT']}"
app = Celery("shop", broker=f"{URL}/0", backend=f"{URL}/1")
app.conf.update(worker_prefetch_multiplier=1, broker_connection_retry_on_startup=True)


@app.task(name="shop.add")
def add(x: int, y: int) -> int:
    return x + y


@app.task(name="shop.total")
def total(numbers: list[int]) -> int:
    return sum(numbers)


@app.task(name="shop.fails")
def fails() -> None:
    raise ValueError("of the task")


@app.task(name="shop.throws", throws=(KeyError,))
def throws() -> None:
    raise KeyError("expected")


@app.task(name="shop.retries", bind=True, max_retries=2, default_retry_delay=0)
def retries(self: Task) -> int:
    if self.request.retries < 2:
        raise self.retry(countdown=0)
    return self.request.retries


@app.task(name="shop.ignores")
def ignores() -> None:
    raise Ignore


@app.task(name="shop.rejects", acks_late=True)
def rejects() -> None:
    raise Reject("no", requeue=False)


@app.task(name="shop.nested", bind=True)
def nested(self: Task) -> str:
    return add.apply_async((3, 4), queue="celery").id and "sent"


@app.task(name="shop.goes on")
def goes_on() -> None:
    raise Retry(when=0)


def main() -> None:
    print(add.delay(1, 2).get(60))
    print(add.apply_async((1,), {"y": 5}, countdown=0.01, headers={"own": "header"}).get(60))
    print(app.send_task("shop.add", (2, 2)).get(60))
    print(add.s(2).apply_async((3,)).get(60))
    for failing in (fails, throws):
        try:
            failing.delay().get(60)
        except Exception as error:
            print(type(error).__name__, error)
    print(retries.delay().get(60))
    ignores.delay()
    rejects.delay()
    print(nested.delay().get(60))
    print(chain(add.s(1, 1), add.s(2)).delay().get(60))
    print(group(add.s(1, 1), add.s(2, 2)).delay().get(60))
    print(chord([add.s(1, 1), add.s(2, 2)])(total.s()).get(60))
    print(add.apply((4, 4)).get(), add(5, 5), fails.apply().state)
    app.conf.task_always_eager = True
    print(add.delay(6, 6).get(), nested.delay().get())


if __name__ == "__main__":
    worker = subprocess.Popen(
        [sys.executable, "-m", "celery", "-A", "program", "worker", "-c", "1", "-l", "error"],
        stdout=subprocess.DEVNULL,
        stderr=sys.stderr,
    )
    try:
        main()
    finally:
        worker.send_signal(signal.SIGTERM)
        worker.wait(60)
