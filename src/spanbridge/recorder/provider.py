"""The TracerProvider: the SDK's own, except that its tracers make spans of ours."""

from __future__ import annotations

from typing import TYPE_CHECKING

from opentelemetry.sdk import trace as sdk

from spanbridge.core.guard import report
from spanbridge.recorder.trial import recording

if TYPE_CHECKING:
    from opentelemetry.trace import Tracer
    from opentelemetry.trace import TracerProvider as ApiTracerProvider
    from opentelemetry.util.types import Attributes


class TracerProvider(sdk.TracerProvider):
    """What `opentelemetry.sdk.trace.TracerProvider` is and takes, at a fraction of its cost per span.

    With a version of the SDK that the recorder does not fit, it is the SDK's provider in all respects; one warning
    says so.
    """

    def get_tracer(
        self,
        instrumenting_module_name: str,
        instrumenting_library_version: str | None = None,
        schema_url: str | None = None,
        attributes: Attributes = None,
    ) -> Tracer:
        """Answer a tracer, the same one for the same scope if the SDK does so.

        Args:
            instrumenting_module_name: the scope's name.
            instrumenting_library_version: the scope's version.
            schema_url: of the scope's semantic conventions.
            attributes: of the scope.
        """
        return _recording(
            super().get_tracer(instrumenting_module_name, instrumenting_library_version, schema_url, attributes)
        )


def adopt(provider: ApiTracerProvider) -> None:
    """Make ours a provider that the SDK's own configuration has made; any other is left alone."""
    if type(provider) is sdk.TracerProvider:
        provider.__class__ = TracerProvider
        for tracer in getattr(provider, "_tracers", {}).values():
            _recording(tracer)


def _recording(tracer: Tracer) -> Tracer:
    # A provider that is switched off answers the API's no-op tracer.
    try:
        if type(tracer) is sdk.Tracer and (record := recording()) is not None:
            return record(tracer)
    except Exception as error:
        report("recorder: making a tracer", error)
    return tracer
