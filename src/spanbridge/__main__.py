"""`python -m spanbridge` is the command `spanbridge`."""

import sys

from spanbridge.cli import main

sys.exit(main())
