"""`opentelemetry-instrument` with spanbridge installed, each time in a process of its own."""

from __future__ import annotations

import json
import time

import pytest

from tests.launcher.conftest import PROGRAM
from tests.servers import free_port

INSTRUMENTOR = "opentelemetry_instrumentor"
RIVAL = """
    from opentelemetry.instrumentation.instrumentor import BaseInstrumentor

    class Rival(BaseInstrumentor):
        def instrumentation_dependencies(self):
            return []

        def _instrument(self, **kwargs):
            print("rival")

        def _uninstrument(self, **kwargs):
            pass

    class Broken(Rival):
        def _instrument(self, **kwargs):
            raise RuntimeError("broken on purpose")
"""


def queries(agent):
    return [span for span in agent.spans if span["name"] == "sqlite.query"]


def test_only_a_service_name_is_needed(run, agent):
    result = run(PROGRAM, DD_SERVICE="shop", DD_ENV="test")
    assert (result.returncode, result.stdout, result.stderr) == (0, "42\n", "")
    (span,) = queries(agent)
    assert span["meta"]["env"] == "test"
    assert span["meta"]["_dd.base_service"] == "shop"


def test_python_processes_that_it_starts_are_traced_too(run, agent):
    result = run("""
        import multiprocessing, subprocess, sys
        if __name__ == "__main__":
            query = "import sqlite3; sqlite3.connect(':memory:').execute('SELECT 1')"
            subprocess.run([sys.executable, "-c", query])
            child = multiprocessing.get_context("spawn").Process(target=exec, args=(query,))
            child.start()
            child.join()
        """)
    assert (result.returncode, result.stderr) == (0, "")
    assert sorted(span["resource"] for span in queries(agent)) == ["SELECT ?"] * 2


def test_set_up_starts_no_thread_and_is_done_once(run):
    result = run(
        """
        import threading
        from opentelemetry import trace
        from opentelemetry.instrumentation.auto_instrumentation import initialize
        from spanbridge.launcher import SpanbridgeConfigurator
        provider = trace.get_tracer_provider()
        SpanbridgeConfigurator().configure()
        import spanbridge.auto
        assert trace.get_tracer_provider() is provider
        print(type(provider).__name__, threading.active_count())
        """,
        DD_SERVICE="shop",
    )
    assert (result.stdout, result.stderr) == ("TracerProvider 1\n", "")


@pytest.mark.parametrize(
    ("recorder", "module"),
    [("", "spanbridge.recorder"), ("spanbridge", "spanbridge.recorder"), ("sdk", "opentelemetry")],
)
def test_the_recorder_is_ours_unless_the_sdk_s_is_asked_for(run, agent, recorder, module):
    result = run(
        f"""
        from opentelemetry import trace
        with trace.get_tracer("app").start_as_current_span("x", attributes={{"a": 1}}) as span:
            print(type(span).__module__.startswith({module!r}))
        """,
        DD_SERVICE="shop",
        SPANBRIDGE_RECORDER=recorder,
    )
    assert (result.stdout, result.stderr) == ("True\n", "")
    assert [span["metrics"]["a"] for span in agent.spans] == [1]


def test_a_configuration_file_s_spans_are_recorded_by_ours(run):
    # The package that reads such files is not installed; what it does in the end is to set the SDK's provider.
    result = run(
        """
        import sys, types
        from opentelemetry import trace
        from opentelemetry.sdk.trace import TracerProvider
        fake = sys.modules["opentelemetry.configuration"] = types.ModuleType("opentelemetry.configuration")
        fake.load_config_file = lambda path: path
        fake.configure_sdk = lambda configuration: trace.set_tracer_provider(TracerProvider())
        from spanbridge.launcher import SpanbridgeConfigurator
        SpanbridgeConfigurator().configure()
        print(type(trace.get_tracer("app").start_span("x")).__module__)
        """,
        launcher=False,
        OTEL_CONFIG_FILE="otel.yaml",
        SPANBRIDGE_RECORDER="spanbridge",
    )
    assert (result.stdout, result.stderr) == ("spanbridge.recorder.span\n", "")


def test_the_environment_names_a_distro_and_a_configurator(run):
    result = run("import os; print(os.environ['OTEL_PYTHON_DISTRO'], os.environ['OTEL_PYTHON_CONFIGURATOR'])")
    assert result.stdout == "spanbridge spanbridge\n"


@pytest.mark.parametrize("variable", ["OTEL_TRACES_EXPORTER=none", "OTEL_SDK_DISABLED=true", "DD_TRACE_ENABLED=false",
                                      "OTEL_TRACES_SAMPLER=always_off"])  # fmt: skip
def test_variables_that_say_nothing_is_sent(run, agent, variable):
    result = run(PROGRAM, DD_SERVICE="shop", **dict([variable.split("=")]))
    assert (result.stdout, result.stderr) == ("42\n", "")
    assert agent.spans == []


def test_another_exporter_replaces_ours(run, agent):
    result = run(
        PROGRAM,
        DD_SERVICE="shop",
        OTEL_TRACES_EXPORTER="console",
        OTEL_RESOURCE_ATTRIBUTES="team=blue",
        OTEL_SERVICE_NAME="boutique",
    )
    span = json.loads(result.stdout.partition("\n")[2])
    assert span["name"] == "SELECT"
    assert span["resource"]["attributes"]["service.name"] == "boutique"
    assert span["resource"]["attributes"]["team"] == "blue"
    assert span["resource"]["attributes"]["telemetry.sdk.language"] == "python"
    assert agent.spans == []


def test_two_exporters_both_get_the_spans(run, agent):
    result = run(PROGRAM, DD_SERVICE="shop", OTEL_TRACES_EXPORTER="console,datadog")
    assert '"SELECT"' in result.stdout
    assert len(queries(agent)) == 1


def test_otlp_means_the_protocol_that_its_variable_names(run, agent, distribution):
    source = """
        from opentelemetry.sdk.trace.export import ConsoleSpanExporter
        class Grpc(ConsoleSpanExporter): print("grpc")
        class Http(ConsoleSpanExporter): print("http")
    """
    names = {"otlp_proto_grpc": "fake_otlp:Grpc", "otlp_proto_http": "fake_otlp:Http"}
    distribution("fake-otlp", source, {"opentelemetry_traces_exporter": names})
    result = run("pass", OTEL_TRACES_EXPORTER="otlp", OTEL_EXPORTER_OTLP_PROTOCOL="http/protobuf")
    assert result.stderr == ""


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("OTEL_TRACES_EXPORTER", "zipkin"),
        ("OTEL_TRACES_EXPORTER", "otlp_proto_grpc"),
        ("OTEL_TRACES_SAMPLER", "no_such_sampler"),
        ("OTEL_PYTHON_ID_GENERATOR", "no_such_generator"),
    ],
)
def test_a_missing_component_is_one_warning(run, variable, value):
    result = run(PROGRAM, DD_SERVICE="shop", **{variable: value})
    assert (result.returncode, result.stdout) == (0, "42\n")
    (line,) = result.stderr.splitlines()
    assert variable in line
    assert value in line


@pytest.mark.parametrize("target", ["fake_broken:absent", "fake_absent:Exporter", "fake_broken:Exporter"])
def test_a_broken_exporter_is_one_warning_and_the_other_works(run, agent, distribution, target):
    source = "class Exporter:\n    def __init__(self): raise OSError('no disk')"
    distribution("fake-broken", source, {"opentelemetry_traces_exporter": {"broken": target}})
    result = run(PROGRAM, DD_SERVICE="shop", OTEL_TRACES_EXPORTER="broken,datadog")
    assert (result.stdout, len(result.stderr.splitlines())) == ("42\n", 1)
    assert len(queries(agent)) == 1


def test_an_id_generator_and_a_sampler_by_entry_point(run, distribution):
    source = """
        from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
        from opentelemetry.sdk.trace.sampling import StaticSampler, Decision
        class Ids(RandomIdGenerator):
            def generate_span_id(self): return 7
        def sampler(argument):
            print("sampler", argument)
            return StaticSampler(Decision.RECORD_AND_SAMPLE)
    """
    groups = {"opentelemetry_id_generator": {"seven": "fake_parts:Ids"}}
    distribution("fake-parts", source, groups | {"opentelemetry_traces_sampler": {"mine": "fake_parts:sampler"}})
    result = run(
        PROGRAM,
        OTEL_TRACES_EXPORTER="console",
        OTEL_PYTHON_ID_GENERATOR="seven",
        OTEL_TRACES_SAMPLER="mine",
        OTEL_TRACES_SAMPLER_ARG="0.5",
    )
    assert "sampler 0.5" in result.stdout
    assert '"span_id": "0x0000000000000007"' in result.stdout


HEADERS = """
    from opentelemetry import propagate, trace
    with trace.get_tracer("t").start_as_current_span("s"):
        headers = {}
        propagate.inject(headers)
    print(*sorted(headers))
"""


def test_datadog_and_w3c_headers_by_default(run):
    names = set(run(HEADERS, DD_SERVICE="shop").stdout.split())
    assert {"traceparent", "tracestate", "x-datadog-trace-id", "x-datadog-parent-id"} <= names


def test_otel_propagators_wins(run):
    assert run(HEADERS, DD_SERVICE="shop", OTEL_PROPAGATORS="tracecontext").stdout == "traceparent\n"


def test_same_named_instrumentors_are_arbitrated(run, agent, distribution):
    distribution("fake-contrib", RIVAL, {INSTRUMENTOR: {"sqlite3": "fake_contrib:Rival"}})
    assert run(PROGRAM, DD_SERVICE="shop").stdout == "42\n"
    assert len(queries(agent)) == 1
    agent.spans.clear()
    result = run(PROGRAM, DD_SERVICE="shop", SPANBRIDGE_PREFER="contrib")
    assert (result.stdout, result.stderr) == ("rival\n42\n", "")
    assert agent.spans == []


def test_a_broken_instrumentor_of_others_stops_nobody(run, agent, distribution):
    distribution("fake-contrib", RIVAL, {INSTRUMENTOR: {"other": "fake_contrib:Broken", "gone": "fake_absent:Rival"}})
    result = run(PROGRAM, DD_SERVICE="shop")
    assert result.stdout == "42\n"
    (line,) = result.stderr.splitlines()
    assert "broken on purpose" in line
    assert len(queries(agent)) == 1


DISTRO = """
    from opentelemetry.instrumentation.distro import BaseDistro

    class Distro(BaseDistro):
        def _configure(self, **kwargs):
            print("their distro")

    class Configurator:
        def configure(self, **kwargs):
            print("their configurator")
"""
DISTRO_ENTRIES = {
    "opentelemetry_distro": {"distro": "fake_distro:Distro"},
    "opentelemetry_configurator": {"configurator": "fake_distro:Configurator"},
}


def test_ours_is_in_charge_beside_another_distro(run, agent, distribution):
    distribution("fake-distro", DISTRO, DISTRO_ENTRIES)
    assert run(PROGRAM, DD_SERVICE="shop").stdout == "42\n"
    assert len(queries(agent)) == 1


def test_another_distro_by_its_variables(run, agent, distribution):
    distribution("fake-distro", DISTRO, DISTRO_ENTRIES)
    theirs = {"OTEL_PYTHON_DISTRO": "distro", "OTEL_PYTHON_CONFIGURATOR": "configurator"}
    assert run(PROGRAM, DD_SERVICE="shop", **theirs).stdout == "their distro\ntheir configurator\n42\n"
    assert agent.spans == []


def test_without_the_parent_process_another_distro_that_comes_first_is_reported(run, distribution):
    distribution("fake-distro", DISTRO, DISTRO_ENTRIES)
    program = "from opentelemetry.instrumentation.auto_instrumentation import initialize\ninitialize()"
    result = run(program, launcher=False, DD_SERVICE="shop")
    assert result.stdout == "their distro\ntheir configurator\n"
    assert "fake-distro was loaded before spanbridge" in result.stderr
    assert "OTEL_PYTHON_DISTRO=spanbridge" in result.stderr


def test_metrics_are_left_to_the_sdk_and_imported_only_then(run, distribution):
    program = "import sys; print('opentelemetry.sdk.metrics' in sys.modules, 'opentelemetry.sdk._logs' in sys.modules)"
    assert run(program, DD_SERVICE="shop").stdout == "False False\n"
    result = run(program, DD_SERVICE="shop", OTEL_METRICS_EXPORTER="console")
    assert (result.stdout.splitlines()[0], result.stderr) == ("True True", "")


def test_auto_does_the_same_without_the_launcher(run, agent):
    result = run("import spanbridge.auto\n" + PROGRAM.replace("\n    ", "\n"), launcher=False, DD_SERVICE="shop")
    assert (result.stdout, result.stderr) == ("42\n", "")
    assert len(queries(agent)) == 1


def test_auto_under_the_launcher_changes_nothing(run, agent):
    result = run("import spanbridge.auto\n" + PROGRAM.replace("\n    ", "\n"), DD_SERVICE="shop")
    assert (result.stdout, result.stderr) == ("42\n", "")
    assert len(queries(agent)) == 1


def test_auto_survives_a_propagator_that_is_not_installed(run):
    result = run("import spanbridge.auto\nprint('on')", launcher=False, OTEL_PROPAGATORS="no_such_propagator")
    assert result.stdout == "on\n"
    assert len(result.stderr.splitlines()) == 1


def test_nothing_of_ours_imports_ssl_or_a_client_library(run):
    # wrapt and old OpenTelemetry, which the launcher imports, import asyncio and with it ssl: they get a stand-in.
    result = run(
        """
        import builtins, sys, types

        original = builtins.__import__
        stand_in = types.SimpleNamespace(iscoroutinefunction=lambda function: False, Lock=object)

        def importer(name, globals=None, *rest, **more):
            if name == "asyncio" and (globals or {}).get("__name__", "").startswith(("wrapt", "opentelemetry")):
                return stand_in
            return original(name, globals, *rest, **more)

        builtins.__import__ = importer
        import spanbridge.auto
        builtins.__import__ = original
        import spanbridge
        assert spanbridge.status()
        print(*sorted({"ssl", "asyncio", "urllib3", "requests", "http.client", "flask", "redis"} & set(sys.modules)))
        """,
        launcher=False,
        DD_SERVICE="shop",
    )
    assert (result.stdout, result.stderr) == ("\n", "")


def test_the_exit_is_quick_when_nobody_listens(run):
    started = time.monotonic()
    run(PROGRAM, OTEL_TRACES_EXPORTER="none")
    plain = time.monotonic() - started
    started = time.monotonic()
    result = run(PROGRAM, DD_SERVICE="shop", DD_TRACE_AGENT_URL=f"http://127.0.0.1:{free_port()}")
    assert time.monotonic() - started < 2 * plain + 1  # the machine may be busier than a moment ago
    assert result.stdout == "42\n"
