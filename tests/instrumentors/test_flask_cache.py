"""Flask-Caching from 1.0, and Flask-Cache, in memory and over Redis."""

from __future__ import annotations

import warnings
from importlib.metadata import version
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import pytest

flask = pytest.importorskip("flask")
SUCCESSOR = find_spec("flask_caching") is not None
with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of their age
    Cache = pytest.importorskip("flask_caching" if SUCCESSOR else "flask_cache").Cache
NEW = SUCCESSOR and int(version("flask-caching").partition(".")[0]) >= 2
SIMPLE, REDIS = ("SimpleCache", "RedisCache") if NEW else ("simple", "redis")

from spanbridge.instrumentors.flask_cache import FlaskCacheInstrumentor  # noqa: E402
from spanbridge.instrumentors.redis import RedisInstrumentor  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from spanbridge.testing import Payload, Spans
    from tests.servers import Server

pytestmark = [
    pytest.mark.filterwarnings(f"ignore::{category}")
    for category in ("DeprecationWarning", "ImportWarning", "UserWarning")
]


@pytest.fixture
def made() -> Iterator[Callable[..., Any]]:
    contexts = []

    def make(**config: Any) -> Any:
        app = flask.Flask("shop")
        cache = Cache(app, config=config)
        contexts.append(app.app_context())
        contexts[-1].push()
        return cache

    yield make
    for context in reversed(contexts):
        context.pop()


def names(spans: Spans) -> list[str]:
    return [span["name"] for span in spans]


def test_a_call(made: Any, spans: Spans, payload: Payload, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = made(CACHE_TYPE=SIMPLE)  # before `instrument()`
    FlaskCacheInstrumentor().instrument()
    assert cache.get("user:1") is None
    (span,) = spans
    assert (span["name"], span["kind"], span["status"]) == ("get", "INTERNAL", "UNSET")
    assert span["attributes"] == {
        "flask_cache.backend": SIMPLE,
        "flask_cache.key": "user:1",
        "db.response.returned_rows": 0,
    }
    monkeypatch.setenv("DD_SERVICE", "shop")
    ((mapped,),) = payload()
    mapped_names = (mapped["service"], mapped["name"], mapped["resource"], mapped["type"])
    assert mapped_names == ("shop", "flask_cache.cmd", "get", "cache")


@pytest.mark.parametrize("late", [False, True])
def test_the_applications_configuration(late: bool, spans: Spans, caplog: pytest.LogCaptureFixture) -> None:
    FlaskCacheInstrumentor().instrument()
    app = flask.Flask("shop")
    if late:
        cache = Cache()
        cache.init_app(app, config={"CACHE_TYPE": SIMPLE})
    else:
        app.config["CACHE_TYPE"] = SIMPLE
        cache = Cache(app)
    with app.app_context():
        cache.set("a", 1)
    assert [span["attributes"] for span in spans] == [{"flask_cache.backend": "SimpleCache", "flask_cache.key": "a"}]
    assert caplog.text == ""


def test_a_cache_without_an_application(spans: Spans, caplog: pytest.LogCaptureFixture) -> None:
    FlaskCacheInstrumentor().instrument()
    with pytest.raises(Exception, match="app") as caught:
        Cache().get("a")
    assert [span["attributes"]["error.type"] for span in spans] == [type(caught.value).__name__]
    assert caplog.text == ""


def test_every_method(made: Any, spans: Spans, payload: Payload) -> None:
    cache = made(CACHE_TYPE=SIMPLE)
    FlaskCacheInstrumentor().instrument()
    cache.set("a", "secret")
    cache.add("b", "secret")
    cache.set_many({"c": "secret", "d": "secret"})
    assert cache.get_many("c", "missing") == ["secret", None]
    cache.delete("a")
    cache.delete_many("c", "d")
    cache.clear()
    assert names(spans)[:4] == ["set", "add", "set_many", "get_many"]
    assert [name for name in names(spans) if name.startswith("delete") or name == "clear"] == [
        "delete",
        "delete_many",
        "clear",
    ]
    assert spans[2]["attributes"]["flask_cache.key"] == ("c", "d")
    assert payload()[2][0]["meta"]["flask_cache.key"] == "['c', 'd']"
    assert spans[3]["attributes"]["db.response.returned_rows"] == 1
    assert "secret" not in repr(list(spans))


@pytest.mark.skipif(not NEW, reason="before Flask-Caching 2.0, decorators go past the cache's own methods")
def test_decorators(made: Any, spans: Spans) -> None:
    cache = made(CACHE_TYPE=SIMPLE)
    FlaskCacheInstrumentor().instrument()

    @cache.cached(60, key_prefix="items")
    def items() -> list[int]:
        return [1]

    assert items() == items() == [1]
    assert {"get", "set"} <= set(names(spans))


def test_the_store_has_its_own_span_below(made: Any, spans: Spans, redis_server: Server, payload: Payload) -> None:
    FlaskCacheInstrumentor().instrument()
    RedisInstrumentor().instrument()
    cache = made(CACHE_TYPE=REDIS, CACHE_REDIS_HOST=redis_server.host, CACHE_REDIS_PORT=redis_server.port)
    cache.set("k", "v")
    inner, outer = spans[0], spans[-1]
    assert (inner["kind"], outer["kind"], inner["parent"]) == ("CLIENT", "INTERNAL", "set")
    assert (outer["attributes"]["server.address"], outer["attributes"]["server.port"]) == redis_server
    assert payload()[-1][0]["metrics"]["out.redis_db"] == 0


def test_failures(made: Any, spans: Spans, monkeypatch: pytest.MonkeyPatch) -> None:
    FlaskCacheInstrumentor().instrument()
    cache = made(CACHE_TYPE=SIMPLE)

    def fail(*args: Any, **kwargs: Any) -> None:
        raise ConnectionError

    monkeypatch.setattr(cache.cache, "get", fail)
    with pytest.raises(ConnectionError):
        cache.get("k")
    assert (spans[0]["status"], spans[0]["attributes"]["error.type"]) == ("ERROR", "ConnectionError")


def test_keys_go_when_asked(made: Any, spans: Spans) -> None:
    FlaskCacheInstrumentor().instrument(capture_keys=False)
    made(CACHE_TYPE=SIMPLE).get("user:1")
    assert "flask_cache.key" not in spans[0]["attributes"]
