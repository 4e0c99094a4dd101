"""Any driver after PEP 249: `trace_integration(driver, "connect", "mysql")`, one CLIENT span per statement.

Connections and cursors become proxies, `__wrapped__` being the driver's own; `spanbridge.conventions.dbapi` says which
of their calls are traced.
"""

from __future__ import annotations

from functools import cached_property, partial
from inspect import isawaitable
from sys import modules
from typing import TYPE_CHECKING, Any, ClassVar

import wrapt
from opentelemetry import trace
from opentelemetry.instrumentation.utils import unwrap

from spanbridge.conventions import database, dbapi, sqlcommenter
from spanbridge.conventions.database import Target, shared_target
from spanbridge.conventions.dbapi import (
    CursorTracer,
    Promise,
    TracedConnectionProxy,
    TracedCursorProxy,
    get_traced_connection_proxy,
    get_traced_cursor_proxy,
)
from spanbridge.conventions.drivers import as_port, as_text, attribute
from spanbridge.core import semconv
from spanbridge.core.guard import guarded, logger, report
from spanbridge.core.instrumentor import Instrumentor
from spanbridge.version import __version__ as __version__

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from opentelemetry.trace import TracerProvider

    from spanbridge.conventions.database import Query
    from spanbridge.conventions.drivers import Driver
    from spanbridge.core.tracing import Scope, Setup, Wrapped

__all__ = [
    "CursorTracer",
    "DatabaseApiIntegration",
    "TracedConnectionProxy",
    "TracedCursorProxy",
    "get_traced_connection_proxy",
    "get_traced_cursor_proxy",
    "instrument_connection",
    "trace_integration",
    "uninstrument_connection",
    "unwrap_connect",
    "wrap_connect",
]


def trace_integration(
    connect_module: Any,
    connect_method_name: str,
    database_system: str,
    connection_attributes: Mapping[str, str] | None = None,
    tracer_provider: TracerProvider | None = None,
    capture_parameters: bool = False,
    enable_commenter: bool = False,
    db_api_integration_factory: Callable[..., DatabaseApiIntegration] | None = None,
    enable_attribute_commenter: bool = False,
    commenter_options: Mapping[str, Any] | None = None,
    meter_provider: Any = None,
) -> None:
    """Trace every connection that a driver's function makes; see `wrap_connect` for the arguments."""
    wrap_connect(
        __name__,
        connect_module,
        connect_method_name,
        database_system,
        connection_attributes,
        __version__,
        tracer_provider,
        capture_parameters,
        enable_commenter,
        db_api_integration_factory,
        commenter_options=commenter_options,
        enable_attribute_commenter=enable_attribute_commenter,
        meter_provider=meter_provider,
    )


def wrap_connect(
    name: str,
    connect_module: Any,
    connect_method_name: str,
    database_system: str,
    connection_attributes: Mapping[str, str] | None = None,
    version: str = "",
    tracer_provider: TracerProvider | None = None,
    capture_parameters: bool = False,
    enable_commenter: bool = False,
    db_api_integration_factory: Callable[..., DatabaseApiIntegration] | None = None,
    commenter_options: Mapping[str, Any] | None = None,
    enable_attribute_commenter: bool = False,
    meter_provider: Any = None,
) -> None:
    """Trace every connection that `connect_method_name` of `connect_module` makes.

    Args:
        name: the scope of the spans.
        connect_module: the module, or the class, that has the function.
        connect_method_name: the function.
        database_system: the `db.system.name`, such as `mysql`.
        connection_attributes: where a connection tells its `database`, `host`, `port` and `user`, as dotted paths.
        version: accepted; the scope's version is that of spanbridge.
        tracer_provider: instead of the global one.
        capture_parameters: whether the parameters of statements are recorded.
        enable_commenter: whether a comment is appended to statements, see `spanbridge.conventions.sqlcommenter`.
        db_api_integration_factory: instead of `DatabaseApiIntegration`; called once per connection.
        commenter_options: the keys that are False in it are left out of comments.
        enable_attribute_commenter: whether the span's statement shows the comment, too.
        meter_provider: accepted, unused.
    """
    make = maker(
        db_api_integration_factory,
        name,
        database_system,
        connection_attributes=connection_attributes,
        version=version,
        tracer_provider=tracer_provider,
        capture_parameters=capture_parameters,
        enable_commenter=enable_commenter,
        commenter_options=commenter_options,
        connect_module=connect_module,
        enable_attribute_commenter=enable_attribute_commenter,
        meter_provider=meter_provider,
    )
    wrap_function(connect_module, connect_method_name, make, "wrapped_connection")


def unwrap_connect(connect_module: Any, connect_method_name: str) -> None:
    """Take `wrap_connect` back; connections made before stay traced, see `uninstrument_connection`."""
    unwrap(connect_module, connect_method_name)


def instrument_connection(
    name: str,
    connection: Any,
    database_system: str,
    connection_attributes: Mapping[str, str] | None = None,
    version: str = "",
    tracer_provider: TracerProvider | None = None,
    capture_parameters: bool = False,
    enable_commenter: bool = False,
    commenter_options: Mapping[str, Any] | None = None,
    connect_module: Any = None,
    enable_attribute_commenter: bool = False,
    db_api_integration_factory: Callable[..., DatabaseApiIntegration] | None = None,
    meter_provider: Any = None,
) -> Any:
    """Answer a proxy that traces this one connection; see `wrap_connect` for the arguments."""
    if isinstance(connection, TracedConnectionProxy):
        logger.warning("dbapi: attempting to instrument a connection while already instrumented")
        return connection
    make = maker(
        db_api_integration_factory,
        name,
        database_system,
        connection_attributes=connection_attributes,
        version=version,
        tracer_provider=tracer_provider,
        capture_parameters=capture_parameters,
        enable_commenter=enable_commenter,
        commenter_options=commenter_options,
        connect_module=connect_module,
        enable_attribute_commenter=enable_attribute_commenter,
        meter_provider=meter_provider,
    )
    integration = make()
    return connection if integration is None else integration.proxy(connection)


def maker(
    factory: Callable[..., DatabaseApiIntegration] | None, name: str, system: str, **options: Any
) -> Callable[[], DatabaseApiIntegration | None]:
    """Answer what makes the integration of one connection, or None where the factory fails; see `wrap_connect`."""
    return guarded(partial(factory or DatabaseApiIntegration, name, system, **options), f"dbapi: {system}")


def wrap_function(owner: Any, name: str, make: Callable[[], DatabaseApiIntegration | None], method: str) -> None:
    """Let an integration's method run the calls of a function, which go straight through where there is none.

    Args:
        owner: the module, or the class, that has the function.
        name: the function.
        make: makes the integration of one call, see `maker`.
        method: takes the function, and the call's arguments as a tuple and a dict.
    """

    def call(wrapped: Wrapped, instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        integration = make()
        if integration is None:
            return wrapped(*args, **kwargs)
        return getattr(integration, method)(wrapped, args, kwargs)

    try:
        wrapt.wrap_function_wrapper(owner, name, call)
    except Exception as error:
        report(f"dbapi: wrapping {name}", error)


def uninstrument_connection(connection: Any) -> Any:
    """Answer a connection that makes no spans: a proxy's original, or one of a traced class without its tracing."""
    plain = connection.__wrapped__ if isinstance(connection, TracedConnectionProxy) else connection
    if not database.untrace(plain) and plain is connection:
        logger.warning("dbapi: attempting to uninstrument a connection while already uninstrumented")
    return plain


class DriverInstrumentor(Instrumentor):
    """The instrumentor of one driver, with contrib's two helpers for single connections."""

    driver: ClassVar[Driver]
    integration: ClassVar[Callable[..., DatabaseApiIntegration] | None] = None

    @classmethod
    def instrument_connection(
        cls,
        connection: Any,
        tracer_provider: TracerProvider | None = None,
        enable_commenter: bool = False,
        commenter_options: Mapping[str, Any] | None = None,
        enable_attribute_commenter: bool = False,
        capture_parameters: bool = False,
    ) -> Any:
        """Answer a proxy that traces this one connection; see `wrap_connect` for the arguments."""
        return instrument_connection(
            cls.__module__,
            connection,
            cls.driver.system,
            cls.driver.attributes,
            version=__version__,
            tracer_provider=tracer_provider,
            enable_commenter=enable_commenter,
            commenter_options=commenter_options,
            enable_attribute_commenter=enable_attribute_commenter,
            capture_parameters=capture_parameters,
            connect_module=modules.get(cls.driver.module),
            db_api_integration_factory=cls.integration,
        )

    @classmethod
    def uninstrument_connection(cls, connection: Any) -> Any:
        """Answer the connection as it is without us: a proxy's original, or one that makes no more spans."""
        if cls.driver.knows(connection) and cls.driver.forget(connection):
            return connection
        return uninstrument_connection(connection)

    @classmethod
    def connection_setup(
        cls,
        tracer_provider: TracerProvider | None = None,
        enable_commenter: bool = False,
        commenter_options: Mapping[str, Any] | None = None,
        enable_attribute_commenter: bool = False,
        capture_parameters: bool = False,
    ) -> Setup:
        """Decide for one connection; the arguments are those of `instrument_connection`."""
        options: dict[str, Any] = {
            "tracer_provider": tracer_provider,
            "enable_commenter": enable_commenter,
            "commenter_options": commenter_options,
            "enable_attribute_commenter": enable_attribute_commenter,
        }
        if capture_parameters:
            options["capture_parameters"] = True
        return cls().setup(**options)

    @classmethod
    def stand_in(cls, made: Any, setup: Setup) -> Any:
        """Answer a proxy for what `connect` made, if that is a connection, but none of the driver's own classes."""
        try:
            if setup.source.closed or cls.driver.knows(made) or not hasattr(made, "cursor"):
                return made
            names = ("tracer_provider", "capture_parameters", *(option.name for option in sqlcommenter.OPTIONS))
            options: dict[str, Any] = {name: setup.options.get(name) for name in names}
            return cls.instrument_connection(made, **options)
        except Exception as error:
            report(f"{setup.integration}: tracing a connection", error)
            return made


class DatabaseApiIntegration:
    """What is known of one connection, and how its calls become spans; see `wrap_connect` for the arguments.

    Attributes:
        connection_props: what the connection told, by the keys of `connection_attributes`.
        database: the database's name; subclasses may set it.
        span_attributes: further attributes for every span; subclasses may fill it.
        commenter_data: what comments tell of the driver.
    """

    def __init__(
        self,
        name: str,
        database_system: str,
        connection_attributes: Mapping[str, str] | None = None,
        version: str = "",
        tracer_provider: TracerProvider | None = None,
        capture_parameters: bool = False,
        enable_commenter: bool = False,
        commenter_options: Mapping[str, Any] | None = None,
        connect_module: Any = None,
        enable_attribute_commenter: bool = False,
        meter_provider: Any = None,
    ) -> None:
        if connection_attributes is None:
            connection_attributes = {field: field for field in ("database", "port", "host", "user")}
        self.connection_attributes = connection_attributes
        self.capture_parameters = capture_parameters
        self.enable_commenter = enable_commenter
        self.commenter_options = commenter_options
        self.enable_attribute_commenter = enable_attribute_commenter
        self.database_system = database_system
        self.connect_module = connect_module
        self.connection_props: dict[str, Any] = {}
        self.span_attributes: dict[str, Any] = {}
        self.name = ""
        self.database: Any = ""
        current, names = trace.get_tracer_provider(), semconv.from_env()
        self.engine = dbapi.engine(name, tracer_provider, current, names, capture_parameters=capture_parameters)
        self.commenter_data = self.calculate_commenter_data()

    def calculate_commenter_data(self) -> dict[str, Any]:
        """Answer what comments tell of the driver; nothing when comments are off."""
        return sqlcommenter.driver_tags(self.connect_module, self.database_system) if self.enable_commenter else {}

    def wrapped_connection(
        self, connect_method: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> Any:
        """Connect, and answer the connection's proxy; a coroutine of it, if connecting is one."""
        made = connect_method(*args, **kwargs)
        return Promise(made, self.proxy) if isawaitable(made) else self.proxy(made)

    def proxy(self, connection: Any) -> Any:
        """Ask a connection where it leads, and answer its proxy."""
        guarded(self.get_connection_attributes, f"dbapi: {self.database_system}: attributes")(connection)
        return get_traced_connection_proxy(connection, self)

    def get_connection_attributes(self, connection: Any) -> None:
        """Read from the connection what `connection_attributes` names."""
        for key, path in self.connection_attributes.items():
            if value := attribute(connection, path):
                self.connection_props[key] = value
        self.database = as_text(self.connection_props.get("database")) or ""
        self.name = f"{self.database_system}.{self.database}" if self.database else self.database_system
        vars(self).pop("target", None)

    @cached_property
    def target(self) -> Target:
        """Where the connection leads, as known when its first span starts."""
        props = self.connection_props
        user, host, port = as_text(props.get("user")), as_text(props.get("host")), as_port(props.get("port"))
        return shared_target(self.database_system, as_text(self.database), user, host, port)

    @cached_property
    def commenter(self) -> Callable[[Scope[Query]], None] | None:
        """Appends comments to the connection's statements; None when comments are off."""
        if not self.enable_commenter:
            return None
        return sqlcommenter.commenter(
            self.engine.setup,
            self.commenter_data,
            self.commenter_options,
            in_attribute=self.enable_attribute_commenter,
            position=dbapi.STATEMENT,
        )
