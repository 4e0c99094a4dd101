"""The application that test_celery.py sends tasks to, in processes of its own: BROKER and BACKEND say through what.

In a worker SPANS names the file that its spans are written to, by a processor that would send them in an hour.
"""

from __future__ import annotations

import concurrent.futures.thread  # noqa: F401 - its fork hook comes before the provider's
import json
import os
import time
from functools import partial
from pathlib import Path
from typing import Any

from celery import Celery
from celery.exceptions import Ignore, Reject
from opentelemetry import baggage, trace

app = Celery("shop", broker=os.environ["BROKER"], backend=os.environ["BACKEND"])
app.conf.update(
    worker_prefetch_multiplier=1,
    task_acks_late=True,
    task_create_missing_queues=True,
    beat_schedule={"every second": {"task": "shop.add", "schedule": 1.0, "args": (1, 1)}},
)

task = partial(app.task, shared=False)

if "SPANS" in os.environ:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

    from spanbridge.instrumentors.celery import CeleryInstrumentor

    class File(SpanExporter):
        def export(self, spans: Any) -> SpanExportResult:
            rows = [
                {
                    "name": span.name,
                    "kind": span.kind.name,
                    "trace_id": span.context.trace_id,
                    "span_id": span.context.span_id,
                    "parent_id": span.parent.span_id if span.parent else None,
                    "status": span.status.status_code.name,
                    "attributes": dict(span.attributes),
                    "events": [event.name for event in span.events],
                    "pid": os.getpid(),
                }
                for span in spans
            ]
            with Path(os.environ["SPANS"]).open("a") as file:
                file.write("".join(json.dumps(row) + "\n" for row in rows))
            return SpanExportResult.SUCCESS

        def shutdown(self) -> None: ...

    provider = TracerProvider()
    provider.add_span_processor(BatchSpanProcessor(File(), schedule_delay_millis=3_600_000))
    trace.set_tracer_provider(provider)
    CeleryInstrumentor().instrument()


@task(name="shop.add")
def add(x: int, y: int) -> int:
    return x + y


@task(name="shop.total")
def total(numbers: list[int]) -> int:
    return sum(numbers)


@task(name="shop.pid")
def pid() -> int:
    return os.getpid()


@task(name="shop.user")
def user() -> object:
    return baggage.get_baggage("user")


@task(name="shop.headers", bind=True)
def headers(self: Any) -> object:
    return getattr(self.request, "own", None) or (self.request.headers or {}).get("own")


@task(name="shop.fails")
def fails() -> None:
    raise ValueError("of the task")


@task(name="shop.throws", throws=(KeyError,))
def throws() -> None:
    raise KeyError("expected")


@task(name="shop.retries", bind=True, max_retries=3)
def retries(self: Any) -> int:
    if self.request.retries < 2:
        raise self.retry(countdown=0, exc=ValueError("again"))
    return self.request.retries


@task(name="shop.ignores")
def ignores() -> None:
    raise Ignore


@task(name="shop.rejects")
def rejects() -> None:
    raise Reject("no", requeue=False)


@task(name="shop.sleeps")
def sleeps(seconds: float) -> None:
    time.sleep(seconds)


@task(name="shop.nested")
def nested() -> str:
    return add.delay(1, 2).id


@task(name="shop.replaced", bind=True)
def replaced(self: Any) -> None:
    raise self.replace(add.s(3, 4))
