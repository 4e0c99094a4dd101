"""celery: what is sent (here), and what real workers make of it (there), over Redis and RabbitMQ."""

from __future__ import annotations

import importlib
import json
import os
import signal
import subprocess
import sys
import time
import warnings
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of old versions on new Pythons
    pytest.importorskip("celery")
    from celery import Celery, chain, chord, group
    from celery.app.trace import build_tracer

from opentelemetry import baggage, trace
from opentelemetry.context import attach, detach

from spanbridge.instrumentors.celery import CeleryInstrumentor

if TYPE_CHECKING:
    from collections.abc import Iterator

    from spanbridge.testing import Payload, Spans
    from tests.servers import Server

HERE = Path(__file__).parent
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:pkg_resources is deprecated"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


def names(spans: Any) -> list[tuple[str, str, str]]:
    return [(row["name"], row["kind"], row["status"]) for row in spans]


def span(name: str) -> Any:
    return trace.get_tracer("application").start_as_current_span(name)


# Sending, over a broker in memory that nobody listens to.


@pytest.fixture
def app() -> Any:
    app = Celery("shop", broker="memory://", set_as_current=False)

    @app.task(name="shop.add", shared=False)
    def add(x: int, y: int) -> int:
        return x + y

    @app.task(name="shop.fails", shared=False)
    def fails() -> None:
        raise ValueError("of the task")

    app.control.purge()
    return app


def received(app: Any, queue: str = "celery") -> Any:
    with app.connection_for_read() as connection:
        return connection.default_channel.basic_get(queue)


def test_sending(app: Any, spans: Spans, payload: Payload) -> None:
    CeleryInstrumentor().instrument()
    own = {"own": "header"}
    result = app.tasks["shop.add"].apply_async((1, 2), headers=own)
    (span,) = spans
    assert (span["name"], span["kind"], span["status"]) == ("apply_async/shop.add", "PRODUCER", "UNSET")
    origin = span["attributes"].pop("celery.hostname")
    assert span["attributes"].pop("server.address", "localhost") == "localhost"
    assert origin.startswith("gen")
    assert span["attributes"] == {
        "celery.action": "apply_async",
        "celery.task_name": "shop.add",
        "celery.reply_to": app.thread_oid if hasattr(app, "thread_oid") else app.oid,
        "messaging.system": "memory",
        "messaging.operation.type": "send",
        "messaging.operation.name": "apply_async",
        "messaging.destination.name": "celery",
        "messaging.message.id": result.id,
        "messaging.message.conversation_id": result.id,
    }
    headers = received(app).headers
    assert headers["traceparent"] == f"00-{span['trace_id']:032x}-{span['span_id']:016x}-01"
    assert headers["own"] == "header"
    assert own == {"own": "header"}
    ((mapped,),) = payload()
    assert (mapped["name"], mapped["resource"], mapped["type"]) == ("celery.apply", "shop.add", "")
    assert mapped["meta"]["celery.id"] == result.id
    assert mapped["meta"]["celery.routing_key"] == "celery"


def test_sending_by_name_and_by_signature(app: Any, spans: Spans) -> None:
    CeleryInstrumentor().instrument()
    app.send_task("elsewhere.task", queue="celery")
    app.signature("elsewhere.other", (1,)).apply_async()
    assert [row["name"] for row in spans] == ["apply_async/elsewhere.task", "apply_async/elsewhere.other"]


def test_sending_that_fails(app: Any, spans: Spans, payload: Payload, monkeypatch: pytest.MonkeyPatch) -> None:
    CeleryInstrumentor().instrument()
    error = OSError("no broker")

    def publish(*args: Any, **kwargs: Any) -> None:
        raise error

    with app.producer_pool.acquire() as producer:
        producer.publish = publish
        with pytest.raises(OSError) as raised:
            app.tasks["shop.add"].apply_async((1, 2), producer=producer)
    assert raised.value is error
    assert names(spans) == [("apply_async/shop.add", "PRODUCER", "ERROR")]


def test_no_propagation_when_switched_off(app: Any, spans: Spans, monkeypatch: pytest.MonkeyPatch) -> None:
    from spanbridge.core.options import load_vendor_settings

    with monkeypatch.context() as patch:
        patch.setenv("DD_CELERY_DISTRIBUTED_TRACING", "false")
        load_vendor_settings()
        CeleryInstrumentor().instrument()
    load_vendor_settings()
    app.tasks["shop.add"].delay(1, 2)
    assert len(spans) == 1
    assert "traceparent" not in received(app).headers


# Eager tasks run here.


def test_eager(app: Any, spans: Spans, payload: Payload) -> None:
    CeleryInstrumentor().instrument()
    app.conf.task_always_eager = True
    with span("request"):
        assert app.tasks["shop.add"].delay(1, 2).get() == 3
        assert app.tasks["shop.fails"].apply_async().state == "FAILURE"
        with pytest.raises(ValueError, match="of the task"):
            app.tasks["shop.fails"].apply(throw=True)
    assert [(row["name"], row["parent"], row["status"]) for row in spans] == [
        ("run/shop.add", "request", "UNSET"),
        ("run/shop.fails", "request", "ERROR"),
        ("run/shop.fails", "request", "ERROR"),
        ("request", None, "UNSET"),
    ]
    assert [event["name"] for event in spans[2]["events"]] == ["exception"]


def test_a_call_is_a_call(app: Any, spans: Spans) -> None:
    CeleryInstrumentor().instrument()
    assert app.tasks["shop.add"](1, 2) == 3
    assert len(spans) == 0


# Workers.


class Shop(NamedTuple):
    """The application here, and its workers there."""

    module: Any
    variables: dict[str, str]
    folder: Path
    spans: Spans

    @contextmanager
    def worker(
        self, *options: str, pool: str = "prefork", command: str = "worker"
    ) -> Iterator[subprocess.Popen[bytes]]:
        arguments = [sys.executable, "-m", "celery", "-A", "celery_shop", command, "-l", "INFO"]
        if command == "worker":
            arguments += ["-P", pool, "-c", "1"]
        with (self.folder / f"{command}.log").open("ab") as log:
            process = subprocess.Popen([*arguments, *options], env=self.variables, stderr=log, stdout=log, cwd=HERE)
            try:
                yield process
            finally:
                if process.poll() is None:
                    process.terminate()
                try:
                    process.wait(60)
                except subprocess.TimeoutExpired:
                    process.kill()
                    raise

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The spans of the workers, in order of their ends."""
        path = Path(self.variables["SPANS"])
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def tree(self) -> list[str]:
        """All spans, here and there, below their parents."""
        every = [*self.spans, *self.rows]
        below: dict[Any, list[dict[str, Any]]] = {}
        known = {row["span_id"] for row in every}
        for row in every:
            below.setdefault(row["parent_id"] if row["parent_id"] in known else None, []).append(row)

        def lines(parent: Any, depth: int) -> Iterator[str]:
            for row in sorted(below.get(parent, ()), key=lambda row: row["name"]):
                yield "  " * depth + row["name"] + (" ERROR" if row["status"] == "ERROR" else "")
                yield from lines(row["span_id"], depth + 1)

        return list(lines(None, 0))


@pytest.fixture(params=["redis", "rabbitmq"])
def shop(
    request: pytest.FixtureRequest, spans: Spans, redis_server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Shop]:
    backend = f"redis://{redis_server.host}:{redis_server.port}/1"
    if request.param == "redis":
        broker = f"redis://{redis_server.host}:{redis_server.port}/0"
    else:
        server: Server = request.getfixturevalue("rabbitmq_server")
        broker = f"amqp://guest:guest@{server.host}:{server.port}//"
    monkeypatch.setenv("BROKER", broker)
    monkeypatch.setenv("BACKEND", backend)
    monkeypatch.syspath_prepend(HERE)
    sys.modules.pop("celery_shop", None)
    module = importlib.import_module("celery_shop")
    module.app.control.purge()
    CeleryInstrumentor().instrument()
    variables = {**os.environ, "SPANS": str(tmp_path / "spans"), "PYTHONPATH": str(HERE)}
    yield Shop(module, variables, tmp_path, spans)
    module.app.close()
    sys.modules.pop("celery_shop", None)


only_redis = pytest.mark.parametrize("shop", ["redis"], indirect=True)


@pytest.mark.parametrize("pool", ["prefork", "solo", "threads"])
def test_runs_continue_the_senders_trace(shop: Shop, pool: str) -> None:
    tasks = shop.module
    with shop.worker(pool=pool):
        with span("request"):
            token = attach(baggage.set_baggage("user", "7"))
            assert tasks.add.delay(1, 2).get(60) == 3
            assert tasks.app.send_task("shop.user").get(60) == "7"
            assert tasks.headers.apply_async(headers={"own": "mine"}).get(60) == "mine"
            detach(token)
        assert tasks.user.delay().get(60) is None
    assert shop.tree() == [
        "apply_async/shop.user",
        "  run/shop.user",
        "request",
        "  apply_async/shop.add",
        "    run/shop.add",
        "  apply_async/shop.headers",
        "    run/shop.headers",
        "  apply_async/shop.user",
        "    run/shop.user",
    ]
    assert len({row["trace_id"] for row in (*shop.spans, *shop.rows)}) == 2
    run = shop.rows[0]
    assert run["kind"] == "CONSUMER"
    found = {key: run["attributes"][key] for key in ("celery.action", "celery.task_name", "celery.state")}
    assert found == {"celery.action": "run", "celery.task_name": "shop.add", "celery.state": "SUCCESS"}
    assert run["attributes"]["messaging.destination.name"] == "celery"
    assert run["attributes"]["celery.hostname"]


def test_outcomes(shop: Shop) -> None:
    tasks = shop.module
    with shop.worker():
        with pytest.raises(ValueError, match="of the task"):
            tasks.fails.delay().get(60)
        with pytest.raises(KeyError):
            tasks.throws.delay().get(60)
        assert tasks.retries.delay().get(60) == 2
        tasks.ignores.delay()
        tasks.rejects.delay()
        tasks.replaced.delay().get(60)
    assert shop.tree() == [
        "apply_async/shop.fails",
        "  run/shop.fails ERROR",
        "apply_async/shop.ignores",
        "  run/shop.ignores",
        "apply_async/shop.rejects",
        "  run/shop.rejects",
        "apply_async/shop.replaced",
        "  run/shop.replaced",
        "    apply_async/shop.add",
        "      run/shop.add",
        "apply_async/shop.retries",
        "  run/shop.retries",
        "    apply_async/shop.retries",
        "      run/shop.retries",
        "        apply_async/shop.retries",
        "          run/shop.retries",
        "apply_async/shop.throws",
        "  run/shop.throws",
    ]
    by_name = {row["name"]: row for row in shop.rows if row["attributes"].get("celery.retries") != 2}
    states = {name: row["attributes"].get("celery.state") for name, row in by_name.items() if name.startswith("run/")}
    assert states == {
        "run/shop.fails": "FAILURE",
        "run/shop.throws": "FAILURE",
        "run/shop.retries": "RETRY",
        "run/shop.ignores": "IGNORED",
        "run/shop.rejects": "REJECTED",
        "run/shop.replaced": "IGNORED",
        "run/shop.add": "SUCCESS",
    }
    assert by_name["run/shop.fails"]["attributes"]["error.type"] == "ValueError"
    assert by_name["run/shop.fails"]["events"] == ["exception"]
    assert "again" in by_name["run/shop.retries"]["attributes"]["celery.retry.reason"]


@only_redis
def test_canvases(shop: Shop) -> None:
    add, total = shop.module.add, shop.module.total
    with shop.worker():
        with span("chain"):
            assert chain(add.s(1, 1), add.s(2)).delay().get(60) == 4
        with span("group"):
            assert group(add.s(1, 1), add.s(2, 2)).delay().get(60) == [2, 4]
        with span("chord"):
            assert chord([add.s(1, 1), add.s(2, 2)])(total.s()).get(60) == 6
    assert len({row["trace_id"] for row in (*shop.spans, *shop.rows)}) == 3
    tree = "\n".join(shop.tree())
    chained = "\n  apply_async/shop.add\n    run/shop.add"
    assert f"chain{chained}\n      apply_async/shop.add\n        run/shop.add\n" in tree
    assert f"group{chained}{chained}" in tree
    assert "      apply_async/shop.total\n        run/shop.total" in tree


@only_redis
def test_a_task_that_sends_another(shop: Shop) -> None:
    with shop.worker():
        identity = shop.module.nested.delay().get(60)
        assert shop.module.add.AsyncResult(identity).get(60) == 3
    assert shop.tree() == [
        "apply_async/shop.nested",
        "  run/shop.nested",
        "    apply_async/shop.add",
        "      run/shop.add",
    ]


def test_spans_survive_recycled_processes(shop: Shop) -> None:
    """Contrib delivers 1 of 10 here: Celery ends these processes without Python's exit handlers."""
    with shop.worker("--max-tasks-per-child", "1"):
        pids = [shop.module.pid.delay().get(60) for _ in range(10)]
        assert len(set(pids)) == 10
    assert sorted(row["pid"] for row in shop.rows) == sorted(pids)


def test_spans_survive_a_warm_shutdown(shop: Shop) -> None:
    with shop.worker() as process:
        pid = shop.module.pid.delay().get(60)
        shop.module.sleeps.delay(0.5)
        deadline = time.monotonic() + 60
        while "shop.sleeps[" not in (shop.folder / "worker.log").read_text() and time.monotonic() < deadline:
            time.sleep(0.02)
        process.send_signal(signal.SIGTERM)
        process.wait(60)
    assert [row["name"] for row in shop.rows] == ["run/shop.pid", "run/shop.sleeps"]
    assert {row["pid"] for row in shop.rows} == {pid}


@only_redis
def test_spans_survive_sigterm_of_a_pools_process(shop: Shop) -> None:
    with shop.worker() as process:
        pid = shop.module.pid.delay().get(60)
        os.kill(pid, signal.SIGTERM)
        other = shop.module.pid.delay().get(60)
        assert other != pid
        process.send_signal(signal.SIGTERM)
        process.wait(60)
    assert [row["pid"] for row in shop.rows] == [pid, other]


@only_redis
def test_a_run_that_is_terminated(shop: Shop) -> None:
    with shop.worker() as process:
        result = shop.module.sleeps.delay(60)
        deadline = time.monotonic() + 60
        while "shop.sleeps[" not in (shop.folder / "worker.log").read_text() and time.monotonic() < deadline:
            time.sleep(0.02)
        time.sleep(0.5)  # from the parent's line to the run in the pool's process
        result.revoke(terminate=True)
        shop.module.pid.delay().get(60)
        process.send_signal(signal.SIGTERM)
        process.wait(60)
    cut, whole = shop.rows
    assert (cut["name"], cut["status"], cut["events"]) == ("run/shop.sleeps", "ERROR", ["exception"])
    assert cut["attributes"]["error.type"] == "Terminated"
    assert (whole["name"], whole["status"]) == ("run/shop.pid", "UNSET")


@only_redis
def test_beat(shop: Shop) -> None:
    with shop.worker(), shop.worker("--schedule", str(shop.folder / "schedule"), command="beat"):
        deadline = time.monotonic() + 60
        while "succeeded" not in (shop.folder / "worker.log").read_text() and time.monotonic() < deadline:
            time.sleep(0.05)
    tree = shop.tree()
    assert tree[:2] == ["apply_async/shop.add", "  run/shop.add"]
    assert set(tree) == set(tree[:2])


def test_links(app: Any, spans: Spans) -> None:
    """For tasks that run long after the request that sent them."""
    CeleryInstrumentor().instrument(use_span_links=True)
    task = app.tasks["shop.add"]
    with span("request"):
        task.delay(1, 2)
    request = {**received(app).headers, "delivery_info": {"routing_key": "celery"}, "is_eager": False}
    build_tracer(task.name, task, app=app)(request["id"], (1, 2), {}, request)
    sent, _, run = spans
    assert (run["name"], run["parent_id"]) == ("run/shop.add", None)
    assert run["trace_id"] != sent["trace_id"]
    assert [link["span_id"] for link in run["links"]] == [sent["span_id"]]
