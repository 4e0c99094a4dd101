# /// script
# dependencies = ["Pylons==1.0.3", "setuptools<81", "wrapt", "bytecode"]
# [tool.parity]
# ddtrace = "2.3.3"  # the last one that knows Pylons
# prepare = "tests.pylons_port"
# ///
"""Pylons behind its own middleware: routes, errors, redirects, what no route matches.

ddtrace's middleware is put around the stack by hand: its automatic patch expects an older Pylons.
"""

from __future__ import annotations

import sys
import warnings
from typing import Any

from _wsgi import send

warnings.simplefilter("ignore")  # it imports much that Python and setuptools have deprecated

from beaker.middleware import SessionMiddleware  # noqa: E402
from paste.registry import RegistryManager  # noqa: E402
from pylons.configuration import PylonsConfig  # noqa: E402
from pylons.controllers import WSGIController  # noqa: E402
from pylons.controllers.util import abort  # noqa: E402
from pylons.wsgiapp import PylonsApp  # noqa: E402
from routes import Mapper  # noqa: E402
from routes.middleware import RoutesMiddleware  # noqa: E402


class Items(WSGIController):
    def home(self) -> str:
        return "home"

    def show(self, item: str) -> str:
        return f"item {item}"

    def broken(self) -> None:
        raise ValueError("fault")

    def refused(self, code: str) -> None:
        abort(int(code))


mapper = Mapper()
mapper.minimization = False
for path, action in {
    "/": "home",
    "/items/{item}": "show",
    "/broken": "broken",
    "/refused/{code}": "refused",
}.items():
    mapper.connect(path, controller="items", action=action)
mapper.create_regs([])
config = PylonsConfig()
config.init_app({}, {}, package="shop")
config["routes.map"] = mapper
config["pylons.app_globals"] = type("Globals", (), {})()
config["pylons.h"] = None
PylonsApp.app = None  # ddtrace's patch looks for it, in vain
inner: Any = PylonsApp(config=config)
inner.controller_classes["items"] = Items
app: Any = RegistryManager(SessionMiddleware(RoutesMiddleware(inner, mapper, singleton=False), {}))
if "ddtrace" in sys.modules:
    from ddtrace import tracer
    from ddtrace.contrib.pylons.middleware import PylonsTraceMiddleware

    app = PylonsTraceMiddleware(app, tracer)
send(
    app,
    """
GET /
GET /?q=1
GET /items/3
HEAD /items/3
POST /items/3
GET /broken
GET /refused/404
GET /refused/503
GET /refused/302
GET /nowhere/3
""",
)
