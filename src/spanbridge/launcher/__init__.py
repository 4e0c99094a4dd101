"""What `opentelemetry-instrument` loads: the distro (which instrumentors) and the configurator (which provider)."""

from spanbridge.launcher.configurator import SpanbridgeConfigurator
from spanbridge.launcher.distro import SpanbridgeDistro

__all__ = ["SpanbridgeConfigurator", "SpanbridgeDistro"]
