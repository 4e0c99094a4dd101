"""A Pylons application without a project of its own: controllers behind the middleware that such an application has."""

from __future__ import annotations

import warnings
from typing import Any

with warnings.catch_warnings():  # it imports much that Python and setuptools have deprecated
    warnings.simplefilter("ignore")
    import pylons
    from beaker.middleware import SessionMiddleware
    from paste.registry import RegistryManager
    from pylons.configuration import PylonsConfig
    from pylons.controllers import WSGIController
    from pylons.templating import cached_template
    from pylons.wsgiapp import PylonsApp
    from routes import Mapper
    from routes.middleware import RoutesMiddleware


def make_app(controllers: dict[str, Any], *routes: tuple[str, str, str]) -> Any:
    """Make an application.

    Args:
        controllers: by the names that routes call them.
        *routes: paths, each with its controller and action.
    """
    mapper = Mapper()
    mapper.minimization = False
    for path, controller, action in routes:
        mapper.connect(path, controller=controller, action=action)
    mapper.create_regs([])
    config = PylonsConfig()
    config.init_app({}, {}, package="shop")
    config["routes.map"] = mapper
    config["pylons.app_globals"] = type("Globals", (), {})()
    config["pylons.h"] = None
    app = PylonsApp(config=config)
    app.controller_classes.update(controllers)
    return RegistryManager(SessionMiddleware(RoutesMiddleware(app, mapper, singleton=False), {}))


__all__ = ["WSGIController", "cached_template", "make_app", "pylons"]
