"""Imported by `opentelemetry-instrument` before it starts the program: spanbridge is the distro, unless told otherwise.

The launcher makes a command-line argument of every name here that begins with OTEL_, so there is none.
"""

from os import environ

CHOICES = {"opentelemetry_distro": "OTEL_PYTHON_DISTRO", "opentelemetry_configurator": "OTEL_PYTHON_CONFIGURATOR"}


def choose_spanbridge() -> None:
    """Answer the launcher's question which distro and which configurator to load, where the user has not."""
    for variable in CHOICES.values():
        environ.setdefault(variable, "spanbridge")


choose_spanbridge()
