"""A pytest plug-in: writes every warning of ours to the file that OWN_SUITES_WARNINGS names."""

from __future__ import annotations

import logging
import os

_file = logging.FileHandler(os.environ["OWN_SUITES_WARNINGS"], delay=True)
_file.setLevel(logging.WARNING)
logging.getLogger("spanbridge").addHandler(_file)
