"""A pytest plug-in: writes every warning of ours to the file that OWN_SUITES_WARNINGS names.

It also makes the first span: the exporter's thread runs before suites remember which threads there are.
"""

from __future__ import annotations

import logging
import os

from opentelemetry import trace

_file = logging.FileHandler(os.environ["OWN_SUITES_WARNINGS"], delay=True)
_file.setLevel(logging.WARNING)
logging.getLogger("spanbridge").addHandler(_file)
trace.get_tracer(__name__).start_span("watch").end()
