"""SQLAlchemy, core and ORM, plain and asyncio: one CLIENT span per statement, from the engines' own events.

The driver's span of the same statement is left out, unless `trace_driver` asks for both; what it alone knows is added.
Not traced: connections, unless `trace_connect` asks for them; commits, which are the driver's.
"""

from __future__ import annotations

from dataclasses import replace
from sys import modules
from typing import TYPE_CHECKING, Any

from spanbridge.conventions import database, drivers, sqlcommenter
from spanbridge.conventions.database import Query, Target, first_word, shared_target
from spanbridge.core.instrumentor import Instrumentor
from spanbridge.core.options import Option
from spanbridge.core.patching import Library, Patch
from spanbridge.core.tracing import traced, traced_failures
from spanbridge.instrumentors.sqlalchemy_events import STATEMENT, EngineTracer, executing, following, handling
from spanbridge.version import __version__ as __version__

if TYPE_CHECKING:
    from collections.abc import Mapping

    from opentelemetry.trace import TracerProvider

    from spanbridge.core.tracing import Operation, Scope, Setup, Wrapped

_STABLE = {"mssql": "microsoft.sql_server", "oracle": "oracle.db"}


def _target(engine: Any, setup: Setup) -> Target:
    """Answer where an engine leads; it remembers that itself."""
    known: tuple[Any, Target] = getattr(engine, "_spanbridge_target", _UNKNOWN)
    semconv, target = known
    if semconv is not setup.semconv:
        url, system = engine.url, engine.dialect.name
        system = _STABLE.get(system, system) if setup.semconv.database.stable else system
        target = shared_target(system, url.database, url.username, url.host, url.port)
        engine._spanbridge_target = setup.semconv, target  # noqa: SLF001
    return target


_UNKNOWN: tuple[Any, Any] = None, None


def _statements(setup: Setup) -> Operation[Query]:
    def describe(
        connection: Any, cursor: Any, statement: str, parameters: Any, context: Any, executemany: bool, /
    ) -> Query:
        size = database.batch_size(parameters) if executemany else None
        target = _target(connection.engine, setup)
        return Query(target, statement, cursor, parameters, size)

    operation = drivers.layered(setup, database.operation(setup, describe, prepare=_commenting(setup)))
    return _as_contrib(operation, setup) if setup.semconv.contrib else operation


def _as_contrib(operation: Operation[Query], setup: Setup) -> Operation[Query]:
    """Name spans and operations `SELECT shop`, as contrib does for SQLAlchemy alone."""
    names = setup.semconv.database
    keys = (("db.operation",) if names.old else ()) + (("db.operation.name",) if names.stable else ())

    def name(query: Query) -> str:
        words = filter(None, (first_word(query.statement), query.target.namespace))
        return " ".join(words) or query.target.system

    def attributes(query: Query) -> Mapping[str, Any]:
        return {**operation.attributes(query), **dict.fromkeys(keys, name(query))}

    return replace(operation, name=name, attributes=attributes)


def _commenting(setup: Setup) -> Any:
    options, vendor = setup.options, sqlcommenter.vendor_writer(setup.integration)
    in_attribute, chosen = bool(options["enable_attribute_commenter"]), options["commenter_options"]

    def prepare(scope: Scope[Query]) -> None:
        if options["enable_commenter"]:
            connection = scope.args[0]
            framework = f"sqlalchemy:{modules['sqlalchemy'].__version__}"
            tags = {"db_driver": connection.engine.driver, "db_framework": framework}
            write = sqlcommenter.commenter(setup, tags, chosen, in_attribute=in_attribute, position=STATEMENT)
            write(scope)
        if vendor is not None and scope.record.target.system in {"postgresql", "mysql", "mariadb"}:
            sqlcommenter.change_statement(scope, sqlcommenter.prepend, vendor(scope), STATEMENT)

    return prepare if options["enable_commenter"] or vendor is not None else None


def _connecting(original: Wrapped, setup: Setup) -> Wrapped:
    contrib = setup.semconv.contrib
    every = contrib or setup.options["trace_connect"]
    tracer: EngineTracer = setup.options["tracer"]

    def describe(engine: Any, /, *args: Any, **kwargs: Any) -> Query | None:
        wanted = tracer.follows(engine) and (every or not _driver_tells(engine))
        return Query(_target(engine, setup), verb="connect" if contrib else "CONNECT") if wanted else None

    operation = database.operation(setup, describe)
    if contrib:
        operation = replace(operation, name=lambda query: "connect")
    return (traced if every else traced_failures)(original, setup, operation)


def _driver_tells(engine: Any) -> bool:
    """Say whether the driver's own instrumentor makes a span of a connection that fails to open."""
    return hasattr(getattr(engine.dialect.dbapi, "connect", None), "__wrapped__")


class SQLAlchemyInstrumentor(Instrumentor):
    """Traces every engine, or those that `engine` or `engines` name; answers what follows them, as contrib does."""

    library = Library("sqlalchemy", ("SQLAlchemy >= 1.0",), tested="2.1.9")
    patches = (
        Patch("sqlalchemy.engine.base", "Connection.__init__", following),
        Patch("sqlalchemy.engine.base", "Connection._handle_dbapi_exception", handling),
        Patch("sqlalchemy.engine.base", "Connection._execute_context", executing),
        Patch("sqlalchemy.engine.base", "Engine.connect", _connecting),
    )
    options = (
        *sqlcommenter.OPTIONS,
        drivers.TRACE_CONNECT,
        drivers.TRACE_DRIVER,
        Option("engine", None, "The one engine to trace, instead of all."),
        Option("engines", None, "The engines to trace, instead of all."),
    )

    def setup(self, **kwargs: Any) -> Setup:
        """Decide beforehand, and compile what follows the engines."""
        decided = super().setup(**kwargs)
        engines = [] if decided.options["engine"] is None else [decided.options["engine"]]
        engines += decided.options["engines"] or ()
        tracer = EngineTracer(decided, _statements(decided), every=not engines)
        for engine in engines:
            tracer.follow(engine)
        return replace(decided, options={**decided.options, "tracer": tracer})

    def _instrument(self, **kwargs: Any) -> Any:
        super()._instrument(**kwargs)
        tracer = self._installation.setup.options["tracer"] if self._installation else None
        if kwargs.get("engine") is not None:
            return tracer
        return [tracer for _ in kwargs["engines"]] if kwargs.get("engines") is not None else None

    def _uninstrument(self, **kwargs: Any) -> None:
        if self._installation is not None:
            self._installation.setup.options["tracer"].close()
        super()._uninstrument(**kwargs)

    @classmethod
    def instrument_engine(
        cls, engine: Any, tracer_provider: TracerProvider | None = None, **options: Any
    ) -> EngineTracer:
        """Trace this one engine, plain or asyncio, until `close()` of what is answered.

        Args:
            engine: the engine.
            tracer_provider: instead of the global one.
            **options: as of `instrument()`.
        """
        setup = cls().setup(engine=engine, tracer_provider=tracer_provider, **options)
        tracer: EngineTracer = setup.options["tracer"]
        return tracer
