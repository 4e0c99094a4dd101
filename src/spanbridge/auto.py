"""`import spanbridge.auto` as the program's first line does what the launcher does, without the launcher."""

from spanbridge.launcher.distro import SpanbridgeDistro
from spanbridge.launcher.environment import choose_spanbridge

if not SpanbridgeDistro.initialized:
    from opentelemetry.instrumentation.auto_instrumentation import initialize

    choose_spanbridge()
    initialize()
