"""OpenTelemetry span -> Datadog span, as a dict with the keys of the v0.4 format (protocol A.2, B.5).

What does not depend on the single span (service, component, env, tags of the Resource) is computed once per scope, kind
and Resource; per span there is one pass over its attributes. A value that cannot be converted is left out alone.
"""

from __future__ import annotations

import builtins
import os
import sys
from contextlib import suppress
from functools import cache, lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import PurePath
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import uuid4

from opentelemetry.trace import SpanKind, StatusCode

from spanbridge.core.guard import report
from spanbridge.exporters.datadog import names
from spanbridge.exporters.datadog.settings import ENVIRONMENT_KEYS
from spanbridge.exporters.datadog.tags import (
    CLIENT_IP,
    LONGEST_TEXT,
    OTLP,
    RESERVED,
    Targets,
    as_text,
    jsonable,
    normalised,
    plain,
    status,
    status_words,
    store,
    text,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import Event, ReadableSpan
    from opentelemetry.sdk.util.instrumentation import InstrumentationScope
    from opentelemetry.trace import Link, Status

    from spanbridge.exporters.datadog.settings import Settings
    from spanbridge.exporters.datadog.tags import Attributes, Finish, Meta, Metrics
    from spanbridge.exporters.datadog.trace import TraceState

LOW_64 = (1 << 64) - 1
LONGEST_RESOURCE = 5_000  # characters; as the Agent
_MOST_PLANS = 1_000  # plans and services remembered; scopes and services may be made up by the application
_FLAGS_KNOWN = 1 << 31
_LATEST = (1 << 63) - 1  # nanoseconds
_BUILTIN_ERRORS = frozenset(name for name, value in vars(builtins).items() if isinstance(value, type))
_FIELDS = {  # field <- the attributes that set it, the strongest first
    "name": ("datadog.name", "operation.name"),
    "resource": ("datadog.resource", "resource.name"),
    "type": ("datadog.type", "span.type"),
}
_NOISE = ("telemetry.", "process.", "service.instance.id")
# What the Agent names spans by also when it stands in the Resource.
_INHERITED = names.CONSULTED | {
    *("http.route", "url.template", "db.query.text", "db.statement", "rpc.service", "graphql.operation.name"),
    *("messaging.destination", "messaging.destination.name", "operation.name", "resource.name", "span.type"),
}
# Who is called, the strongest first (DD_TRACE_PEER_SERVICE_DEFAULTS_ENABLED).
_PEER_TAGS = ("db.name", "mongodb.db", "rpc.service", "out.host")
_ERROR = StatusCode.ERROR


def _copied(span: Any) -> Any:
    """Answer what mapping reads of a span, under the names that it reads: of one made by hand, or by another SDK."""
    scope = span.instrumentation_scope
    return SimpleNamespace(
        _name=span.name,
        _instrumentation_scope=SimpleNamespace(_name=scope.name if scope else ""),
        _kind=span.kind,
        _status=SimpleNamespace(_status_code=span.status.status_code),
        _start_time=span.start_time,
        _end_time=span.end_time,
        _context=span.context,
        _parent=span.parent,
        _attributes=dict(span.attributes or {}),
        _events=tuple(span.events),
        _links=tuple(span.links),
        _resource=span.resource,
        instrumentation_scope=scope,
        kind=span.kind,
        status=span.status,
        context=span.context,
    )


def attributes_of(span: ReadableSpan) -> Attributes:
    """Answer a span's attributes, as a plain dict if possible: the SDK's mappings are slow to look keys up."""
    attributes = getattr(span, "_attributes", None)
    if type(attributes) is not dict:
        attributes = getattr(attributes, "_dict", None)
    return span.attributes or {} if attributes is None else attributes


class Plan(NamedTuple):
    """What is known about the spans of one scope and kind before the first of them."""

    row: names.Row | None
    naming: Callable[[str, Attributes], names.Names]
    targets: Targets
    finish: Finish | None
    by_status: bool
    service: str | names.Rule
    names_peer: bool
    inherited: Attributes
    meta: Meta
    metas: dict[str, Meta]
    shared: ResourcePlans


class ResourcePlans(NamedTuple):
    """What a Resource, with the settings behind it, says about every span; and the plans made for it."""

    resource: Resource | None
    service: str
    version: str
    inherited: Attributes
    meta: Meta
    plans: dict[tuple[str, int], Plan]


@cache
def inferred_service() -> str:
    """Name the application after its script or module, for want of DD_SERVICE (protocol G.2)."""
    script = PurePath(sys.argv[0] if sys.argv else "")
    name = script.parent.name if script.name == "__main__.py" else script.stem
    return name if name not in {"", "-c", "-m", "-"} else "python"


@lru_cache(1)
def _runtime_id(pid: int) -> str:
    return uuid4().hex


def runtime_id() -> str:
    """Answer the random name of this process; a forked child has another."""
    return _runtime_id(os.getpid())


def last_frames(stack: str, most: int) -> str:
    """Keep the innermost `most` frames of a formatted traceback (DD_TRACE_SPAN_TRACEBACK_MAX_SIZE)."""
    head, *frames = stack.split('\n  File "')
    if len(frames) > most:
        frames = frames[len(frames) - most :]
    return '\n  File "'.join([head, *frames])


def qualified(error: str) -> str:
    """Put `builtins.` before Python's own exceptions, as ddtrace does; OpenTelemetry leaves it out."""
    return f"builtins.{error}" if error in _BUILTIN_ERRORS else error


class SpanMapper:
    """Maps spans by one set of settings; safe to use from several threads.

    Args:
        settings: names, services, tags.
        native_links: write links into the span's own field, else as JSON into `_dd.span_links`.
        native_events: write events into the span's own field, else as JSON into `events`. Only for Agents that say
            `"span_events": true` (protocol A.2).
    """

    def __init__(self, settings: Settings, *, native_links: bool = True, native_events: bool = False) -> None:
        self._settings = settings
        self.native_links = native_links
        self.native_events = native_events
        self._targets: dict[int, Targets] = {}
        self._resources: list[ResourcePlans] = []
        self._latest = ResourcePlans(None, "", "", {}, {}, {})
        self._error_statuses = settings.error_statuses
        self._like_otlp = settings.names == "otel"

    def service_of(self, span: ReadableSpan) -> str:
        """Answer the service that `map` gives to `span` as it is now."""
        return self.service_and_env_of(span)[0]

    def service_and_env_of(self, span: Any) -> tuple[str, str]:
        """Answer the service and the environment that `map` gives to `span` as it is now."""
        try:
            plan = self._plan_for(span)
        except AttributeError:
            plan = self._plan_for(span := _copied(span))
        return self._service(plan, span._name, attributes_of(span)), plan.shared.meta.get("env", "")

    def map(  # noqa: C901 - one function, for each call within it costs a twentieth of it
        self, span: Any, *, top_level: bool, local_root: bool, trace: TraceState | None = None
    ) -> dict[str, Any]:
        """Map one finished span.

        Args:
            span: what the SDK hands to exporters (a `ReadableSpan`).
            top_level: it has no parent in this process, or one of another service.
            local_root: it has no parent in this process.
            trace: hears of what the span says about the sampling of its trace.
        """
        try:  # the fields and not the properties, which cost much more, and copy lists under a lock
            name = span._name
            attributes = span._attributes
            if type(attributes) is not dict:
                attributes = attributes._dict
            events = span._events
            if type(events) is not tuple:  # our recorder's, while there are none
                events = events._dq
            links = span._links
            if type(links) is not tuple:
                links = links._dq
            code = span._status._status_code
            start = span._start_time
            end = span._end_time
            context = span._context
            parent = span._parent
            shared = self._latest
            # The kind by its number: members of enumerations hash slowly.
            key = span._instrumentation_scope._name, span._kind._value_
            plan = shared.plans.get(key) if shared.resource is span._resource else None
        except AttributeError:
            return self.map(_copied(span), top_level=top_level, local_root=local_root, trace=trace)
        if plan is None:
            plan = self._plan_for(span)
        row, naming, targets, finish, by_status, service, names_peer, inherited, _, metas, _ = plan
        if inherited:
            attributes = {**inherited, **attributes}
        if type(service) is not str or "service.name" in attributes or "datadog.service" in attributes:
            service = self._service(plan, name, attributes)
        meta = (metas.get(service) or self._meta(plan, service)).copy()
        metrics: Metrics = {"_dd.top_level": 1} if top_level else {}
        reserved = _tag(attributes, targets, meta, metrics)
        try:
            operation, resource, kind, measured = naming(name, attributes)
            possible = operation and type(resource) is str and type(name) is str
        except Exception:
            possible = False
        if not possible:
            operation, resource, kind, measured = _named(naming, name, attributes, span)
        if measured:
            metrics["_dd.measured"] = 1
        if finish is not None:
            try:
                finish(attributes, meta, metrics)
            except Exception as error:
                report("completing tags", error)
        if names_peer or "peer.service" in meta:
            self._name_peer(meta, names_peer)

        # What completes the tags may know of an error that is none to OpenTelemetry.
        failed = code is _ERROR or (finish is not None and "error.type" in meta)
        if failed or (by_status and status(attributes) in self._error_statuses):
            exception = _last_exception(events) if events else None
            answered = status(attributes)
            if by_status and answered:
                failed = self._failed_by_status(answered, exception, row, failed=failed)
            if failed:
                self._describe_error(span.status, exception, reserved, meta, answered if row is None else None)
                events = events if row is None else _without(events, exception)  # error.stack has it

        trace_id, span_id = (context[0], context[1]) if context else (0, 0)  # a tuple, whose properties are slower
        if not (type(start) is type(end) is int and 0 <= start <= end <= _LATEST):
            start, end = _times(start, end)
        mapped: dict[str, Any] = {
            "service": service,
            "name": operation,
            "resource": resource[:LONGEST_RESOURCE] or operation,
            "type": kind,
            "trace_id": trace_id & LOW_64,
            "span_id": span_id,
            "parent_id": parent[1] if parent else 0,
            "start": start,
            "duration": end - start,
            "error": 1 if failed else 0,
            "meta": meta,
            "metrics": metrics,
        }
        if reserved:
            self._override(mapped, reserved, trace)
        if local_root:
            self._mark_local_root(trace_id, meta, metrics)
        if events or links:
            self._add_events_and_links(mapped, events, links)
        if self._like_otlp:
            _add_otlp_tags(meta, span, trace_id)
        return mapped

    def finish_chunk(self, spans: list[dict[str, Any]], trace: TraceState, *, partial: bool = False) -> None:
        """Write what concerns the trace on the first span of a chunk (protocol D.4).

        Args:
            spans: mapped spans of one trace, the local root first if it is among them.
            trace: the trace's sampling decision, origin and tags.
            partial: the trace still runs, so the first span also says how many are in this chunk.
        """
        if not spans:
            return
        meta, metrics = spans[0]["meta"], spans[0]["metrics"]
        if trace.priority is not None:
            metrics.setdefault("_sampling_priority_v1", trace.priority)
        meta.update(trace.tags)
        meta.update(trace.meta)
        metrics.update(trace.metrics)
        meta.update(self._settings.git_metadata)
        if trace.decision_maker:
            meta["_dd.p.dm"] = trace.decision_maker
        if trace.origin:
            meta["_dd.origin"] = trace.origin
        if partial:
            metrics["_dd.py.partial_flush"] = len(spans)

    # --- once per Resource, scope and kind ---

    def _plan_for(self, span: Any) -> Plan:
        resource = span._resource
        for shared in self._resources:  # nearly always one
            if shared.resource is resource:
                break
        else:
            shared = self._read_resource(resource)
            self._resources = [shared, *self._resources[:15]]
        self._latest = shared
        key = span._instrumentation_scope._name, span._kind._value_
        plan = shared.plans.get(key)
        if plan is None:
            plan = self._make_plan(span.instrumentation_scope, span.kind, shared)
            if len(shared.plans) < _MOST_PLANS:
                shared.plans[key] = plan
        return plan

    def _read_resource(self, resource: Resource) -> ResourcePlans:
        settings, attributes = self._settings, resource.attributes
        service = text(attributes, "service.name")
        if not service or service.startswith("unknown_service"):
            service = settings.service
        meta = dict(settings.tags)
        inherited = {key: value for key, value in attributes.items() if key in _INHERITED}
        for key, value in attributes.items():
            if key not in {"service.name", "service.version", *ENVIRONMENT_KEYS} and not key.startswith(_NOISE):
                meta[key] = as_text(value)
        if env := text(attributes, *ENVIRONMENT_KEYS) or settings.env:
            meta["env"] = env
        version = text(attributes, "service.version") or settings.version
        return ResourcePlans(resource, service, version, inherited, meta, {})

    def _make_plan(self, scope: InstrumentationScope | None, kind: SpanKind, shared: ResourcePlans) -> Plan:
        settings, application = self._settings, shared.service
        meta = {} if kind is SpanKind.INTERNAL else {"span.kind": kind.name.lower()}
        peer = settings.peer_service and kind in {SpanKind.CLIENT, SpanKind.PRODUCER}
        found = names.row_for(scope.name, kind, settings.schema) if scope and settings.names == "classic" else None
        if found is None:
            meta |= {"span.kind": kind.name.lower()}
            if scope:
                meta |= {"otel.scope.name": scope.name, "otel.scope.version": scope.version or ""}
                if self._like_otlp:
                    meta |= {"otel.library.name": scope.name, "otel.library.version": scope.version or ""}
            meta = {key: as_text(value) for key, value in meta.items() if value}
            service = self._mapped(application or inferred_service())
            naming, targets = names.naming(None, kind), self._targets_of(OTLP)
            return Plan(None, naming, targets, None, False, service, peer, shared.inherited, meta, {}, shared)
        library, row = found
        row = names.as_asked(row, settings)
        meta["component"] = row.component or library
        if row.version:
            with suppress(PackageNotFoundError):
                meta[row.version] = version(library)
        by_status = "http.response.status_code" in row.tags
        own = self._integration_service(library, row, application)
        naming, targets = names.naming(row, kind), self._targets_of(row.tags)
        return Plan(row, naming, targets, row.finish, by_status, own, peer, {}, meta, {}, shared)

    def _integration_service(self, library: str, row: names.Row, application: str) -> str | names.Rule:
        service = names.own_service(library, row, self._settings, application) or inferred_service()
        return self._mapped(service) if isinstance(service, str) else service

    def _mapped(self, service: str) -> str:
        return self._settings.service_mapping.get(service, service)

    def _targets_of(self, table: Mapping[str, Any]) -> Targets:
        targets = self._targets.get(id(table))
        if targets is None:
            targets = Targets(table)
            if self._settings.client_ip and table is not OTLP:
                targets.update(CLIENT_IP)
            self._targets[id(table)] = targets
        return targets

    def _service(self, plan: Plan, name: str, attributes: Attributes) -> str:
        if chosen := text(attributes, "datadog.service", "service.name"):
            return self._mapped(chosen)
        if isinstance(plan.service, str):
            return plan.service
        return self._mapped(plan.service(name, attributes) or inferred_service())

    def _meta(self, plan: Plan, service: str) -> Meta:
        shared = plan.shared
        application = shared.service or inferred_service()  # as it is configured: renamed, it is another service
        meta = shared.meta | plan.meta
        if service == application:
            if shared.version:
                meta["version"] = shared.version
        elif shared.service:
            meta["_dd.base_service"] = application
            meta["_dd.svc_src"] = self._source(plan, service)
        if len(plan.metas) < _MOST_PLANS:
            plan.metas[service] = meta
        return meta

    def _source(self, plan: Plan, service: str) -> str:
        """Say where a service that is not the application's comes from: the integration, an option, by hand (`m`)."""
        if service in self._settings.service_mapping.values():
            return "opt.service_mapping"
        if plan.service is names.called_host:
            return "opt.split_by_domain"
        default = plan.row.service if plan.row is not None else ""
        own = service == default or (callable(default) and plan.service is default)
        return plan.meta["component"] if own else "m"

    # --- per span ---

    def _name_peer(self, meta: Meta, asked: bool) -> None:
        """Say who was called, by the span's own word or, if asked, by what else is known."""
        peer, source = meta.get("peer.service"), "peer.service"
        if not peer and asked:
            source = next((tag for tag in _PEER_TAGS if meta.get(tag)), "")
            peer = meta.get(source)
        if not peer:
            return
        meta["_dd.peer.service.source"] = source
        meta["peer.service"] = self._settings.peer_service_mapping.get(peer, peer)
        if meta["peer.service"] != peer:
            meta["_dd.peer.service.remapped_from"] = peer

    def _override(self, mapped: dict[str, Any], reserved: dict[str, Any], trace: TraceState | None) -> None:
        """Apply the attributes that steer the mapping (protocol B.1, B.2)."""
        if trace is not None:
            trace.decide_by_attributes(reserved)
        for field, keys in _FIELDS.items():
            if (value := text(reserved, *keys)) and mapped[field] != "llm":  # a type that stays
                mapped[field] = value[:LONGEST_RESOURCE]
        if self._like_otlp and "operation.name" in reserved:
            mapped["name"] = normalised(mapped["name"]) or "unnamed_operation"  # as the Agent does
        if "datadog.error" in reserved:
            mapped["error"] = 0 if reserved["datadog.error"] in (False, 0, "0", "false") else 1
        event = reserved.get("analytics.event")
        if event is not None:
            mapped["metrics"]["_dd1.sr.eausr"] = 0 if event in (False, 0, "0", "false") else 1
        priority = reserved.get("sampling.priority")
        if isinstance(priority, (int, float)) and not isinstance(priority, bool) and priority - priority == 0:
            mapped["metrics"]["_sampling_priority_v1"] = int(priority)

    def _failed_by_status(self, code: int, exception: Event | None, row: names.Row | None, *, failed: bool) -> bool:
        """Apply ddtrace's rule: statuses that are configured as errors, or an exception (conventions-web-libs 1)."""
        if code in self._settings.error_statuses:
            return True
        if exception is None or (row is not None and row.status_decides):
            return failed and code < 400
        return failed

    def _describe_error(
        self, status: Status, exception: Event | None, reserved: dict[str, Any], meta: Meta, answered: int | None
    ) -> None:
        """Fill `error.*` in; `answered` is the HTTP status of a span that is described as the Agent does it."""
        attributes: Attributes = (exception.attributes or {}) if exception else {}
        kind = text(attributes, "exception.type") or text(reserved, "error.type")
        if kind and not kind.isdecimal():  # status codes are `http.status_code`
            meta.setdefault("error.type", as_text(kind if answered is not None else qualified(kind)))
        message = text(attributes, "exception.message") or _description(status)
        if not message and answered:
            message = _status_line(answered)
        if message:
            message = as_text(message)
            meta.setdefault("error.message", message)
            meta.setdefault("error.msg", message)
        if stack := text(attributes, "exception.stacktrace"):
            meta.setdefault("error.stack", as_text(last_frames(stack, self._settings.traceback_frames)))

    def _mark_local_root(self, trace_id: int, meta: Meta, metrics: Metrics) -> None:
        pid = os.getpid()
        meta["runtime-id"] = _runtime_id(pid)
        meta["language"] = "python"
        metrics["process_id"] = pid
        if high := trace_id >> 64:
            meta["_dd.p.tid"] = high.to_bytes(8, "big").hex()
        if self._settings.report_hostname:
            meta["_dd.hostname"] = self._settings.hostname or hostname()

    def _add_events_and_links(self, mapped: dict[str, Any], events: Sequence[Event], links: Sequence[Link]) -> None:
        if any(event.name == "exception" for event in events):
            mapped["meta"]["_dd.span_events.has_exception"] = "true"
        try:
            if events and self.native_events:
                mapped["span_events"] = [_native_event(event) for event in events]
            elif events:
                mapped["meta"]["events"] = jsonable([_json_event(event) for event in events])
        except Exception as error:
            report("mapping span events", error)
        try:
            if links and self.native_links:
                mapped["span_links"] = [_native_link(link) for link in links]
            elif links:
                mapped["meta"]["_dd.span_links"] = jsonable([_json_link(link) for link in links])
        except Exception as error:
            report("mapping span links", error)


def _last_exception(events: Sequence[Event]) -> Event | None:
    return next((event for event in reversed(events) if event.name == "exception"), None)


def _without(events: Sequence[Event], one: Event | None) -> Sequence[Event]:
    return [event for event in events if event is not one]


def _named(
    naming: Callable[[str, Attributes], names.Names], name: str, attributes: Attributes, span: ReadableSpan
) -> names.Names:
    try:
        found = naming(name if type(name) is str else as_text(name), attributes)
        if found[0] and type(found[1]) is str:
            return found
        return found[0] or span.kind.name.lower(), as_text(found[1]), *found[2:]
    except Exception as error:
        report("naming a span", error)
        kind = span.kind.name.lower()
        return kind, kind, "custom", False


def _tag(attributes: dict[str, Any], targets: Targets, meta: Meta, metrics: Metrics) -> dict[str, Any]:
    """Store every attribute where its target says; those that steer the mapping are returned."""
    reserved: dict[str, Any] = {}
    for key, value in attributes.items():
        target = targets[key]
        if target is None:
            continue
        try:
            if type(target) is str:
                if type(value) is str and len(value) <= LONGEST_TEXT:
                    meta[target] = value
                else:
                    store(target, value, meta, metrics)
            elif target is RESERVED:
                reserved[key] = value
            else:
                target(value, meta, metrics)  # type: ignore[operator]
        except Exception as error:
            report("mapping an attribute", error)
    return reserved


def hostname() -> str:
    """Answer the machine's name."""
    import platform

    return platform.node()


def _add_otlp_tags(meta: Meta, span: ReadableSpan, trace_id: int) -> None:
    """Write what only the Agent's OTLP intake writes (protocol B.1)."""
    meta["otel.trace_id"] = f"{trace_id:032x}"
    meta["otel.status_code"] = span.status.status_code.name.capitalize()
    if description := _description(span.status):
        meta["otel.status_description"] = as_text(description)
    if span.context and span.context.trace_state:
        meta["w3c.tracestate"] = span.context.trace_state.to_header()


def _description(status: Status) -> str:
    return status.description if isinstance(status.description, str) else ""


def _status_line(code: int) -> str:
    return f"{code} {status_words(str(code))}".rstrip()


def _time(value: Any) -> int:
    """Answer a time that can be sent: receivers refuse a whole payload for one that is no 64-bit integer."""
    return int(value) if isinstance(value, (int, float)) and 0 <= value <= _LATEST else 0


def _times(start: Any, end: Any) -> tuple[int, int]:
    return (first := _time(start)), max(first, _time(end))


def _texts(attributes: Mapping[str, Any] | None) -> dict[str, str]:
    return {as_text(key): as_text(value) for key, value in (attributes or {}).items()}


def _native_link(link: Link) -> dict[str, Any]:
    context = link.context
    found: dict[str, Any] = {
        "trace_id": context.trace_id & LOW_64,
        "trace_id_high": context.trace_id >> 64,
        "span_id": context.span_id,
        "attributes": _texts(link.attributes),
        "flags": context.trace_flags | _FLAGS_KNOWN,
    }
    if context.trace_state:
        found["tracestate"] = context.trace_state.to_header()
    return found


def _json_link(link: Link) -> dict[str, Any]:
    context = link.context
    found: dict[str, Any] = {
        "trace_id": f"{context.trace_id:032x}",
        "span_id": f"{context.span_id:016x}",
        "attributes": _texts(link.attributes),
        "flags": int(context.trace_flags),
    }
    if context.trace_state:
        found["tracestate"] = context.trace_state.to_header()
    return found


def _json_event(event: Event) -> dict[str, Any]:
    attributes = {as_text(key): plain(value) for key, value in (event.attributes or {}).items()}
    return {"name": as_text(event.name), "time_unix_nano": _time(event.timestamp), "attributes": attributes}


def _native_event(event: Event) -> dict[str, Any]:
    attributes = {as_text(key): _typed(value) for key, value in (event.attributes or {}).items()}
    return {"name": as_text(event.name), "time_unix_nano": _time(event.timestamp), "attributes": attributes}


def _typed(value: object) -> dict[str, Any]:
    """Write a value with its type: 0 text, 1 boolean, 2 integer, 3 float, 4 list of one type (protocol A.2)."""
    if isinstance(value, (list, tuple)):
        items = [_typed(item) for item in value]
        if len({item["type"] for item in items}) > 1 or any(item["type"] == 4 for item in items):
            items = [{"type": 0, "string_value": as_text(item)} for item in value]
        return {"type": 4, "array_value": {"values": items}}
    if isinstance(value, bool):
        return {"type": 1, "bool_value": value}
    if isinstance(value, int) and -(1 << 63) <= value < 1 << 63:
        return {"type": 2, "int_value": int.__int__(value)}
    if isinstance(value, float) and value - value == 0:
        return {"type": 3, "double_value": float.__float__(value)}
    return {"type": 0, "string_value": as_text(value)}
