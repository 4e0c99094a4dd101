"""Tracing of the benchmark's programs written by hand: the SDK, in the places and with the attributes of ours."""

from __future__ import annotations

import sqlite3
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import celery
import flask
import redis
import requests
from opentelemetry.context import attach, detach, get_current
from opentelemetry.propagate import extract, inject
from opentelemetry.propagators.textmap import Getter
from opentelemetry.trace import SpanKind, Status, StatusCode

if TYPE_CHECKING:
    from opentelemetry.trace import Tracer


class _Headers(Getter[dict[str, Any]]):
    def get(self, carrier: dict[str, Any], key: str) -> list[str] | None:
        value = carrier.get("HTTP_" + key.upper().replace("-", "_"))
        return None if value is None else [value]

    def keys(self, carrier: dict[str, Any]) -> list[str]:
        return [key[5:].lower().replace("_", "-") for key in carrier if key.startswith("HTTP_")]


_HEADERS = _Headers()


def trace_flask(tracer: Tracer) -> None:
    """Put a middleware around every Flask application."""
    application = flask.Flask.wsgi_app

    def middleware(app: flask.Flask, environ: dict[str, Any], start_response: Any) -> Any:
        method = environ["REQUEST_METHOD"]
        attributes = {
            "http.request.method": method,
            "url.scheme": environ["wsgi.url_scheme"],
            "url.path": environ["PATH_INFO"],
            "url.query": environ["QUERY_STRING"],
            "server.address": environ["SERVER_NAME"],
            "server.port": int(environ["SERVER_PORT"]),
            "user_agent.original": environ.get("HTTP_USER_AGENT", ""),
            "network.protocol.version": environ["SERVER_PROTOCOL"].removeprefix("HTTP/"),
        }
        context = extract(environ, getter=_HEADERS)
        with tracer.start_as_current_span(method, context, SpanKind.SERVER, attributes) as span:

            def respond(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
                code = int(status[:3])
                span.set_attribute("http.response.status_code", code)
                if code >= 500:
                    span.set_status(Status(StatusCode.ERROR))
                request = environ["werkzeug.request"]
                if request.url_rule is not None:
                    route = request.url_rule.rule
                    span.update_name(f"{method} {route}")
                    span.set_attribute("http.route", route)
                    span.set_attribute("flask.endpoint", request.endpoint)
                return start_response(status, headers, exc_info)

            return application(app, environ, respond)

    flask.Flask.wsgi_app = middleware  # type: ignore[method-assign, assignment]


def trace_requests(tracer: Tracer) -> None:
    """Wrap what sends a prepared request."""
    send = requests.Session.send

    def traced(session: requests.Session, request: requests.PreparedRequest, **options: Any) -> requests.Response:
        url = urlsplit(request.url or "")
        attributes = {
            "http.request.method": request.method or "",
            "url.full": request.url or "",
            "server.address": url.hostname,
            "server.port": url.port,
            "user_agent.original": request.headers["User-Agent"],
        }
        with tracer.start_as_current_span(request.method or "", kind=SpanKind.CLIENT, attributes=attributes) as span:
            inject(request.headers)
            response = send(session, request, **options)
            span.set_attribute("http.response.status_code", response.status_code)
            if response.status_code >= 400:
                span.set_status(Status(StatusCode.ERROR))
            return response

    requests.Session.send = traced  # type: ignore[method-assign, assignment]


def trace_sqlite3(tracer: Tracer) -> None:
    """Connect with a connection whose cursors trace."""

    class Cursor(sqlite3.Cursor):
        def execute(self, statement: str, *parameters: Any) -> Any:
            verb = statement.split(None, 1)[0].upper()
            attributes = {"db.system.name": "sqlite", "db.query.text": statement, "db.operation.name": verb}
            with tracer.start_as_current_span(verb, kind=SpanKind.CLIENT, attributes=attributes):
                return super().execute(statement, *parameters)

    class Connection(sqlite3.Connection):
        def cursor(self, factory: Any = Cursor) -> Any:
            return super().cursor(factory)

    sqlite3.connect = partial(sqlite3.connect, factory=Connection)  # type: ignore[assignment]


def trace_redis(tracer: Tracer) -> None:
    """Wrap what every command goes through."""
    execute = redis.Redis.execute_command

    def traced(client: Any, *arguments: Any, **options: Any) -> Any:
        verb, server = arguments[0], client.connection_pool.connection_kwargs
        attributes = {
            "db.system.name": "redis",
            "db.namespace": str(server.get("db", 0)),
            "server.address": server["host"],
            "server.port": server["port"],
            "db.query.text": " ".join((*arguments[:2], *("?" for _ in arguments[2:]))),
            "db.operation.name": verb,
        }
        with tracer.start_as_current_span(verb, kind=SpanKind.CLIENT, attributes=attributes):
            return execute(client, *arguments, **options)  # type: ignore[no-untyped-call]

    redis.Redis.execute_command = traced  # type: ignore[method-assign, assignment]


def trace_celery(tracer: Tracer) -> None:
    """Wrap what every task is sent by."""
    send = celery.Celery.send_task

    def traced(app: celery.Celery, name: str, *arguments: Any, **options: Any) -> Any:
        attributes = {
            "messaging.system": "memory",
            "messaging.operation.type": "send",
            "messaging.operation.name": "apply_async",
            "messaging.destination.name": app.conf.task_default_queue,
            "server.address": "localhost",
            "celery.action": "apply_async",
            "celery.task_name": name,
            "celery.hostname": app.conf.task_default_exchange,
            "celery.reply_to": app.thread_oid,
        }
        with tracer.start_as_current_span(f"apply_async/{name}", kind=SpanKind.PRODUCER, attributes=attributes) as span:
            headers = dict(options.get("headers") or {})
            inject(headers)
            options["headers"] = headers
            result = send(app, name, *arguments, **options)
            span.set_attribute("messaging.message.id", result.id)
            span.set_attribute("messaging.message.conversation_id", result.id)
            return result

    celery.Celery.send_task = traced


def trace_futures(tracer: Tracer) -> None:
    """Carry the context into thread pools."""
    submit = ThreadPoolExecutor.submit

    def carrying(executor: ThreadPoolExecutor, function: Any, /, *arguments: Any, **options: Any) -> Any:
        context = get_current()

        def run(*arguments: Any, **options: Any) -> Any:
            token = attach(context)
            try:
                return function(*arguments, **options)
            finally:
                detach(token)

        return submit(executor, run, *arguments, **options)

    ThreadPoolExecutor.submit = carrying  # type: ignore[method-assign, assignment]
