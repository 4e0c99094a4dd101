"""Tracing of the benchmark's programs written by hand: the SDK, in the places and with the attributes of ours."""

from __future__ import annotations

import sqlite3
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import celery
import falcon
import flask
import jinja2
import psycopg
import psycopg2
import pymemcache.client.base
import redis
import requests
import sqlalchemy
from aiohttp import web
from botocore.client import BaseClient
from django.core.handlers.base import BaseHandler
from grpc import _channel
from opentelemetry.context import attach, detach, get_current
from opentelemetry.propagate import extract, inject
from opentelemetry.propagators.textmap import Getter
from opentelemetry.trace import SpanKind, Status, StatusCode, get_current_span, set_span_in_context
from starlette.applications import Starlette
from starlette.routing import Route
from tornado.web import RequestHandler

if TYPE_CHECKING:
    from opentelemetry.trace import Span, Tracer


class _Headers(Getter[dict[str, Any]]):
    def get(self, carrier: dict[str, Any], key: str) -> list[str] | None:
        value = carrier.get("HTTP_" + key.upper().replace("-", "_"))
        return None if value is None else [value]

    def keys(self, carrier: dict[str, Any]) -> list[str]:
        return [key[5:].lower().replace("_", "-") for key in carrier if key.startswith("HTTP_")]


_HEADERS = _Headers()


def _wsgi_attributes(environ: dict[str, Any]) -> dict[str, Any]:
    return {
        "http.request.method": environ["REQUEST_METHOD"],
        "url.scheme": environ["wsgi.url_scheme"],
        "url.path": environ["PATH_INFO"],
        "url.query": environ["QUERY_STRING"],
        "server.address": environ["SERVER_NAME"],
        "server.port": int(environ["SERVER_PORT"]),
        "client.address": environ["REMOTE_ADDR"],
        "user_agent.original": environ.get("HTTP_USER_AGENT", ""),
        "network.protocol.version": environ["SERVER_PROTOCOL"].removeprefix("HTTP/"),
    }


def _note_status(span: Span, code: int) -> None:
    span.set_attribute("http.response.status_code", code)
    if code >= 500:
        span.set_status(Status(StatusCode.ERROR))


def _note_route(span: Span, method: str, route: str) -> None:
    span.update_name(f"{method} {route}")
    span.set_attribute("http.route", route)


def trace_flask(tracer: Tracer) -> None:
    """Put a middleware around every Flask application."""
    application = flask.Flask.wsgi_app

    def middleware(app: flask.Flask, environ: dict[str, Any], start_response: Any) -> Any:
        method, attributes = environ["REQUEST_METHOD"], _wsgi_attributes(environ)
        context = extract(environ, getter=_HEADERS)
        with tracer.start_as_current_span(method, context, SpanKind.SERVER, attributes) as span:

            def respond(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
                _note_status(span, int(status[:3]))
                request = environ["werkzeug.request"]
                if request.url_rule is not None:
                    _note_route(span, method, request.url_rule.rule)
                    span.set_attribute("flask.endpoint", request.endpoint)
                return start_response(status, headers, exc_info)

            return application(app, environ, respond)

    flask.Flask.wsgi_app = middleware  # type: ignore[method-assign, assignment]


def trace_django(tracer: Tracer) -> None:
    """Wrap what every request goes through."""
    original = BaseHandler.get_response

    def get_response(handler: Any, request: Any) -> Any:
        environ = request.environ
        context = extract(environ, getter=_HEADERS)
        attributes = _wsgi_attributes(environ)
        with tracer.start_as_current_span(request.method, context, SpanKind.SERVER, attributes) as span:
            response = original(handler, request)
            _note_status(span, response.status_code)
            match = request.resolver_match
            if match is not None:
                _note_route(span, request.method, match.route)
                span.set_attribute("django.view", match.view_name)
            return response

    BaseHandler.get_response = get_response  # type: ignore[method-assign]


def trace_falcon(tracer: Tracer) -> None:
    """Wrap the application, and its search for the resource."""
    application, find = falcon.App.__call__, falcon.App._get_responder

    def call(app: Any, environ: dict[str, Any], start_response: Any) -> Any:
        method, attributes = environ["REQUEST_METHOD"], _wsgi_attributes(environ)
        context = extract(environ, getter=_HEADERS)
        with tracer.start_as_current_span(method, context, SpanKind.SERVER, attributes) as span:

            def respond(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
                _note_status(span, int(status[:3]))
                return start_response(status, headers, exc_info)

            return application(app, environ, respond)

    def get_responder(app: Any, request: Any) -> Any:
        _, _, resource, template = found = find(app, request)
        if template is not None:
            span = get_current_span()
            _note_route(span, request.method, template)
            span.set_attribute("falcon.resource", f"{type(resource).__module__}.{type(resource).__qualname__}")
        return found

    falcon.App.__call__ = call  # type: ignore[method-assign, assignment]
    falcon.App._get_responder = get_responder  # type: ignore[method-assign]


def trace_starlette(tracer: Tracer) -> None:
    """Wrap the application, and the route that is chosen."""
    application, handle = Starlette.__call__, Route.handle

    async def call(app: Starlette, scope: Any, receive: Any, send: Any) -> None:
        headers = {key.decode(): value.decode() for key, value in scope["headers"]}
        (address, port), client = scope["server"], scope["client"]
        attributes = {
            "http.request.method": scope["method"],
            "url.scheme": scope["scheme"],
            "url.path": scope["path"],
            "url.query": scope["query_string"].decode(),
            "server.address": address,
            "server.port": port,
            "client.address": client[0],
            "client.port": client[1],
            "user_agent.original": headers.get("user-agent", ""),
            "network.protocol.version": scope["http_version"],
        }
        context = extract(headers)
        with tracer.start_as_current_span(scope["method"], context, SpanKind.SERVER, attributes) as span:

            async def respond(message: Any) -> None:
                if message["type"] == "http.response.start":
                    _note_status(span, message["status"])
                await send(message)

            await application(app, scope, receive, respond)

    async def handle_and_name(route: Route, scope: Any, receive: Any, send: Any) -> None:
        _note_route(get_current_span(), scope["method"], route.path)
        await handle(route, scope, receive, send)

    Starlette.__call__ = call  # type: ignore[method-assign]
    Route.handle = handle_and_name  # type: ignore[method-assign]


def trace_aiohttp_server(tracer: Tracer) -> None:
    """Wrap what handles each request of a connection, and the search for the resource."""
    handle, find = web.RequestHandler._handle_request, web.UrlDispatcher.resolve

    async def handle_request(protocol: Any, request: Any, *arguments: Any) -> Any:
        (address, port), client = (request.transport.get_extra_info(end) for end in ("sockname", "peername"))
        attributes = {
            "http.request.method": request.method,
            "url.scheme": request.scheme,
            "url.path": request.path,
            "url.query": request.query_string,
            "server.address": address,
            "server.port": port,
            "client.address": client[0],
            "client.port": client[1],
            "user_agent.original": request.headers.get("User-Agent", ""),
            "network.protocol.version": f"{request.version.major}.{request.version.minor}",
        }
        context = extract(request.headers)
        with tracer.start_as_current_span(request.method, context, SpanKind.SERVER, attributes) as span:
            response, reset = await handle(protocol, request, *arguments)
            _note_status(span, response.status)
            return response, reset

    async def resolve(router: Any, request: Any) -> Any:
        match = await find(router, request)
        resource = match.route.resource
        if resource is not None:
            _note_route(get_current_span(), request.method, resource.canonical)
        return match

    web.RequestHandler._handle_request = handle_request  # type: ignore[method-assign]
    web.UrlDispatcher.resolve = resolve  # type: ignore[method-assign]


def trace_tornado(tracer: Tracer) -> None:
    """Wrap what runs a handler's method; the route is the pattern that the application knows it by."""
    execute = RequestHandler._execute

    async def traced(handler: Any, *arguments: Any, **options: Any) -> None:
        request = handler.request
        client = request.connection.context.address
        attributes = {
            "http.request.method": request.method,
            "url.scheme": request.protocol,
            "url.path": request.path,
            "url.query": request.query,
            "server.address": request.host_name,
            "client.address": client[0],
            "client.port": client[1],
            "user_agent.original": request.headers.get("User-Agent", ""),
            "network.protocol.version": request.version.removeprefix("HTTP/"),
            "tornado.handler": f"{type(handler).__module__}.{type(handler).__qualname__}",
        }
        context = extract(request.headers)
        with tracer.start_as_current_span(request.method, context, SpanKind.SERVER, attributes) as span:
            for rule in handler.application.wildcard_router.rules:
                if rule.target is type(handler):
                    _note_route(span, request.method, rule.matcher.regex.pattern)
            await execute(handler, *arguments, **options)
            _note_status(span, handler.get_status())

    RequestHandler._execute = traced  # type: ignore[method-assign]


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


def trace_pymemcache(tracer: Tracer) -> None:
    """Wrap what reads one key."""
    get = pymemcache.client.base.Client.get

    def traced(client: Any, key: str, *arguments: Any, **options: Any) -> Any:
        host, port = client.server
        attributes = {
            "db.system.name": "memcached",
            "server.address": host,
            "server.port": port,
            "db.query.text": f"get {key}",
            "db.operation.name": "get",
        }
        with tracer.start_as_current_span("get", kind=SpanKind.CLIENT, attributes=attributes):
            return get(client, key, *arguments, **options)

    pymemcache.client.base.Client.get = traced


def _statement(cursor: Any, statement: str) -> tuple[str, dict[str, Any]]:
    """Answer the name and attributes of a statement's span."""
    verb, info = statement.split(None, 1)[0].upper(), cursor.connection.info
    return verb, {
        "db.system.name": "postgresql",
        "db.namespace": info.dbname,
        "server.address": info.host,
        "server.port": info.port,
        "db.query.text": statement,
        "db.operation.name": verb,
    }


def trace_psycopg2(tracer: Tracer) -> None:
    """Connect with cursors that trace."""

    class Cursor(psycopg2.extensions.cursor):
        def execute(self, statement: Any, *parameters: Any) -> None:
            name, attributes = _statement(self, statement)
            with tracer.start_as_current_span(name, kind=SpanKind.CLIENT, attributes=attributes) as span:
                super().execute(statement, *parameters)
                span.set_attribute("db.response.returned_rows", self.rowcount)

    psycopg2.connect = partial(psycopg2.connect, cursor_factory=Cursor)  # type: ignore[assignment]


def trace_psycopg(tracer: Tracer) -> None:
    """Wrap what every statement goes through."""
    execute: Any = psycopg.Cursor.execute

    def traced(cursor: Any, statement: str, *parameters: Any) -> Any:
        name, attributes = _statement(cursor, statement)
        with tracer.start_as_current_span(name, kind=SpanKind.CLIENT, attributes=attributes) as span:
            result = execute(cursor, statement, *parameters)
            span.set_attribute("db.response.returned_rows", cursor.rowcount)
            return result

    psycopg.Cursor.execute = traced  # type: ignore[method-assign, assignment]


def trace_sqlalchemy(tracer: Tracer) -> None:
    """Listen to all engines."""

    def before(connection: Any, cursor: Any, statement: str, parameters: Any, context: Any, many: bool) -> None:
        verb = statement.split(None, 1)[0].upper()
        attributes = {
            "db.system.name": connection.engine.dialect.name,
            "db.query.text": statement,
            "db.operation.name": verb,
        }
        span = tracer.start_span(verb, kind=SpanKind.CLIENT, attributes=attributes)
        context.span, context.token = span, attach(set_span_in_context(span))

    def after(connection: Any, cursor: Any, statement: str, parameters: Any, context: Any, many: bool) -> None:
        detach(context.token)
        context.span.end()

    sqlalchemy.event.listen(sqlalchemy.engine.Engine, "before_cursor_execute", before)
    sqlalchemy.event.listen(sqlalchemy.engine.Engine, "after_cursor_execute", after)


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


def trace_grpc(tracer: Tracer) -> None:
    """Wrap the calls with one request and one response."""
    call = _channel._UnaryUnaryMultiCallable.__call__

    def traced(unary: Any, request: Any, timeout: Any = None, metadata: Any = None, **options: Any) -> Any:
        name = unary._method.decode()[1:]
        service, _, method = name.rpartition("/")
        attributes = {
            "rpc.system": "grpc",
            "rpc.service": service,
            "rpc.method": method,
            "server.address": "localhost",
            "server.port": 50051,
            "rpc.grpc.status_code": 0,
        }
        with tracer.start_as_current_span(name, kind=SpanKind.CLIENT, attributes=attributes):
            headers: dict[str, str] = {}
            inject(headers)
            return call(unary, request, timeout, (*(metadata or ()), *headers.items()), **options)

    _channel._UnaryUnaryMultiCallable.__call__ = traced


def trace_jinja2(tracer: Tracer) -> None:
    """Wrap what renders a template."""
    render = jinja2.Template.render

    def traced(template: jinja2.Template, *arguments: Any, **options: Any) -> str:
        attributes = {"jinja2.template_name": template.name or "<memory>"}
        with tracer.start_as_current_span("jinja2.render", attributes=attributes):
            return render(template, *arguments, **options)

    jinja2.Template.render = traced  # type: ignore[method-assign]


def trace_botocore(tracer: Tracer) -> None:
    """Wrap what every call of an API goes through."""
    call = BaseClient._make_api_call

    def traced(client: Any, operation: str, params: dict[str, Any]) -> Any:
        url = urlsplit(client.meta.endpoint_url)
        service = client.meta.service_model.service_id
        attributes = {
            "rpc.system": "aws-api",
            "rpc.service": service,
            "rpc.method": operation,
            "cloud.region": client.meta.region_name,
            "server.address": url.hostname,
            "server.port": url.port,
            "messaging.system": "aws_sqs",
            "messaging.destination.name": params["QueueUrl"].rpartition("/")[2],
            "aws.sqs.queue.url": params["QueueUrl"],
            "aws.endpoint_prefix": client.meta.service_model.endpoint_prefix,
        }
        name = f"{service}.{operation}"
        with tracer.start_as_current_span(name, kind=SpanKind.CLIENT, attributes=attributes) as span:
            headers: dict[str, str] = {}
            inject(headers)
            carried = {key: {"DataType": "String", "StringValue": value} for key, value in headers.items()}
            attributes_of_message = {**params.get("MessageAttributes", {}), **carried}
            result = call(client, operation, {**params, "MessageAttributes": attributes_of_message})
            span.set_attribute("messaging.message.id", result["MessageId"])
            metadata = result["ResponseMetadata"]
            span.set_attribute("aws.request_id", metadata["RequestId"])
            span.set_attribute("retry_attempts", metadata["RetryAttempts"])
            span.set_attribute("http.response.status_code", metadata["HTTPStatusCode"])
            return result

    BaseClient._make_api_call = traced


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
