"""The configurator: the tracer provider, its exporters and the propagators, from DD_* unless OTEL_* says otherwise.

Builds traces only; metrics and logs go to the SDK's own machinery, which is imported when a variable asks for them.
"""

from __future__ import annotations

from os import environ
from typing import TYPE_CHECKING, Any

from spanbridge.core.guard import logger, report
from spanbridge.core.options import boolean, from_environment, words
from spanbridge.launcher import endings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import SpanProcessor
    from opentelemetry.sdk.trace.id_generator import IdGenerator
    from opentelemetry.sdk.trace.sampling import Sampler

    from spanbridge.exporters.datadog import Settings

_DATADOG = "datadog"
_OTLP = {"grpc": ("otlp_proto_grpc",), "http/protobuf": ("otlp_proto_http",)}


class SpanbridgeConfigurator:
    """Sets up OpenTelemetry for this process, once; a part that fails is reported, and the rest is set up without it.

    Not derived from the SDK's base class, whose module imports the metrics and logs SDKs.
    """

    _configured = False

    def configure(self, **kwargs: Any) -> None:
        """Build and install everything.

        Args:
            kwargs: `auto_instrumentation_version` (the launcher's version) becomes a resource attribute.
        """
        if SpanbridgeConfigurator._configured:
            return
        SpanbridgeConfigurator._configured = True
        try:
            _configure(kwargs.get("auto_instrumentation_version"))
        except Exception as error:
            report("setting up OpenTelemetry", error)


def _configure(auto_version: str | None) -> None:
    if environ.get("OTEL_CONFIG_FILE"):
        _configure_by_file()
        return
    settings = _settings()
    _set_up_logs(settings)
    _set_propagators(settings)
    if from_environment(["OTEL_SDK_DISABLED"], boolean, default=False):
        return
    names = _exporter_names("TRACES") if environ.get("OTEL_TRACES_EXPORTER") else [_DATADOG]
    if names == [_DATADOG] and settings is not None and not settings.trace_enabled:
        return
    resource = _resource(settings, auto_version)
    _set_provider(names, settings, resource)
    if any(_exporter_names(signal) for signal in ("METRICS", "LOGS")):
        _set_up_metrics_and_logs(resource)


def _configure_by_file() -> None:
    """Have the SDK do what OTEL_CONFIG_FILE says, and record its spans by ours."""
    from opentelemetry import trace
    from opentelemetry.sdk._configuration import _OTelSDKConfigurator
    from opentelemetry.sdk.trace import TracerProvider

    from spanbridge.recorder import adopt, chosen_provider

    _OTelSDKConfigurator().configure()  # type: ignore[no-untyped-call]
    if chosen_provider() is not TracerProvider:
        adopt(trace.get_tracer_provider())


def _settings() -> Settings | None:
    try:
        from spanbridge.exporters.datadog import Settings

        return Settings.from_environment()
    except Exception as error:
        report("reading the DD_* settings", error)
        return None


def _set_up_logs(settings: Settings | None) -> None:
    if settings is None:
        return
    try:
        from spanbridge.exporters.datadog.logs import inject_logs, set_up_own_log

        set_up_own_log(settings)
        if settings.logs_injection and settings.trace_enabled:
            inject_logs(settings)
    except Exception as error:
        report("the Datadog settings of logs", error)


def _set_propagators(settings: Settings | None) -> None:
    if environ.get("OTEL_PROPAGATORS") or settings is None:
        return
    try:
        from opentelemetry.propagate import set_global_textmap

        from spanbridge.exporters.datadog import composite_propagator

        set_global_textmap(composite_propagator(settings))
    except Exception as error:
        report("the Datadog propagator", error)


def _set_provider(names: list[str], settings: Settings | None, resource: Resource) -> None:
    # The SDK's fork hook starts threads through this module, whose own hook has to be registered before a provider's:
    # otherwise a forked child waits for a lock that it holds itself, for ever (SDK 1.45).
    import concurrent.futures.thread  # noqa: F401

    from opentelemetry import trace

    from spanbridge.recorder import chosen_provider

    if not isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider):
        logger.warning(
            "the application has set a TracerProvider before spanbridge; it is kept, and spanbridge adds none"
        )
        return
    provider = chosen_provider()(
        sampler=_sampler(to_datadog=_DATADOG in names),
        id_generator=_id_generator(),
        resource=resource,
    )
    for processor in _processors(names, settings):
        provider.add_span_processor(processor)
    trace.set_tracer_provider(provider)


def _exporter_names(signal: str) -> list[str]:
    return [name for name in words(environ.get(f"OTEL_{signal}_EXPORTER", "")) if name.lower() != "none"]


def _processors(names: list[str], settings: Settings | None) -> Iterator[SpanProcessor]:
    for name in names:
        try:
            if name == _DATADOG:
                from spanbridge.exporters.datadog import DatadogSpanProcessor

                processor = DatadogSpanProcessor(settings=settings)
                endings.watch(processor.shutdown)
                yield processor
            else:
                from opentelemetry.sdk.trace.export import BatchSpanProcessor

                yield BatchSpanProcessor(_component("opentelemetry_traces_exporter", *_alternatives(name))())
        except Exception as error:
            logger.warning("OTEL_TRACES_EXPORTER: no spans go to %r (%s: %s)", name, type(error).__name__, error)


def _alternatives(name: str) -> tuple[str, ...]:
    """Name the entry points that can stand for exporter `name`: `otlp` means a protocol of its own variable."""
    if name != "otlp":
        return (name,)
    protocol = environ.get("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL") or environ.get("OTEL_EXPORTER_OTLP_PROTOCOL") or ""
    return _OTLP.get(protocol.strip(), ("otlp_proto_grpc", "otlp_proto_http"))


def _sampler(*, to_datadog: bool) -> Sampler | None:
    """Answer the sampler; None means that the SDK reads one of its own names from OTEL_TRACES_SAMPLER."""
    from opentelemetry.sdk.trace import sampling

    name = environ.get("OTEL_TRACES_SAMPLER", "").strip()
    if name:
        try:
            if _is_of_sdk("opentelemetry_traces_sampler", name):
                return None
            sampler: Sampler = _component("opentelemetry_traces_sampler", name)(environ.get("OTEL_TRACES_SAMPLER_ARG"))
        except Exception as error:
            logger.warning("OTEL_TRACES_SAMPLER=%r is not usable (%s); using the default", name, error)
        else:
            return sampler
    if to_datadog:
        try:
            from spanbridge.exporters.datadog import datadog_sampler

            return datadog_sampler()
        except Exception as error:
            report("the Datadog sampler", error)
    return sampling.DEFAULT_ON


def _id_generator() -> IdGenerator | None:
    name = environ.get("OTEL_PYTHON_ID_GENERATOR", "").strip()
    if not name:
        return None
    try:
        generator: IdGenerator = _component("opentelemetry_id_generator", name)()
    except Exception as error:
        logger.warning("OTEL_PYTHON_ID_GENERATOR=%r is not usable (%s); using random ids", name, error)
        return None
    return generator


def _resource(settings: Settings | None, auto_version: str | None) -> Resource:
    """Join what DD_* says with OTEL_RESOURCE_ATTRIBUTES and OTEL_SERVICE_NAME, which win."""
    from opentelemetry.sdk import resources
    from opentelemetry.sdk.version import __version__

    attributes: dict[str, Any] = {
        resources.TELEMETRY_SDK_LANGUAGE: "python",
        resources.TELEMETRY_SDK_NAME: "opentelemetry",
        resources.TELEMETRY_SDK_VERSION: __version__,
    }
    if auto_version:
        attributes[resources.TELEMETRY_AUTO_VERSION] = auto_version
    if settings is not None:
        from spanbridge.exporters.datadog import resource_attributes

        attributes.update(resource_attributes(settings))
    attributes.update(resources.OTELResourceDetector().detect().attributes)
    attributes.setdefault(resources.SERVICE_NAME, "unknown_service:python")
    if environ.get("OTEL_EXPERIMENTAL_RESOURCE_DETECTORS"):
        return resources.Resource.create(attributes)
    return resources.Resource(attributes)  # `create` would start threads to do what was just done


def _set_up_metrics_and_logs(resource: Resource) -> None:
    """Hand the signals that are not ours to the SDK's configuration, as its own configurator does."""
    try:
        from opentelemetry.sdk._configuration import (
            _get_exporter_names,
            _import_exporters,
            _init_logging,
            _init_metrics,
        )

        _, metrics, logs = _import_exporters([], _get_exporter_names("metrics"), _get_exporter_names("logs"))
        if metrics:
            _init_metrics(metrics, resource)
        if logs:
            variable = "OTEL_PYTHON_LOGGING_AUTO_INSTRUMENTATION_ENABLED"
            _init_logging(logs, resource, from_environment([variable], boolean, default=False))
    except Exception as error:
        report("setting up OTEL_METRICS_EXPORTER and OTEL_LOGS_EXPORTER", error)


def _component(group: str, *names: str) -> Any:
    from opentelemetry.util._importlib_metadata import entry_points

    for name in names:
        for entry_point in entry_points(group=group, name=name):
            return entry_point.load()
    raise LookupError(f"{' or '.join(names)} is not installed")


def _is_of_sdk(group: str, name: str) -> bool:
    from opentelemetry.util._importlib_metadata import entry_points

    return any(
        entry_point.value.startswith("opentelemetry.sdk.") for entry_point in entry_points(group=group, name=name)
    )
