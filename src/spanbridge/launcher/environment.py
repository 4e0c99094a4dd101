"""Imported by `opentelemetry-instrument` before it starts the program: spanbridge is the distro, unless told otherwise.

The launcher makes a command-line argument of every name here that begins with OTEL_, so there is none.
"""

from spanbridge.launcher.distro import choose_spanbridge

choose_spanbridge()
