"""`import spanbridge.auto` as the program's first line does what the launcher does, without the launcher."""

from spanbridge.core.guard import report

try:
    from opentelemetry.instrumentation.auto_instrumentation import initialize

    from spanbridge.launcher.distro import SpanbridgeDistro, choose_spanbridge

    if not SpanbridgeDistro.initialized:
        choose_spanbridge()
        initialize()
except Exception as error:  # such as OpenTelemetry's own for a propagator in OTEL_PROPAGATORS that is not installed
    report("spanbridge.auto", error)
