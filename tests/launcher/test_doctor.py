"""`spanbridge doctor` and SPANBRIDGE_DEBUG: broken set-ups, each explained in one line that names the fix."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from spanbridge.doctor import agent as agents
from tests.launcher.conftest import PROGRAM
from tests.servers import HOST, free_port

pytestmark = pytest.mark.slow

INFO = {"version": "7.60.0", "endpoints": ["/v0.4/traces", "/v0.6/stats"]}
DOCTOR = ("doctor",)


@pytest.fixture
def healthy(agent):
    agent.info = INFO
    return agent


def lines(done):
    """The findings, a line each."""
    return done.stdout.partition("\nFindings\n")[2].strip().splitlines()


def finding(done, word):
    found = [line.strip() for line in lines(done) if word in line]
    assert len(found) == 1, done.stdout + done.stderr
    return found[0]


def row(done, library):
    return next(line.split() for line in done.stdout.splitlines() if line.split()[:1] == [library])


def test_a_healthy_program(run, healthy):
    done = run(PROGRAM, doctor=DOCTOR, DD_SERVICE="shop")
    assert done.returncode == 0, done.stdout
    assert row(done, "sqlite3")[2:] == ["active", "1", "1", "of", "2", "patch", "points"]
    assert "Datadog Agent 7.60.0" in done.stdout
    assert not [line for line in lines(done) if "error" in line or "warning" in line]
    assert "42" not in done.stdout, "what the program prints is not the report's"
    assert [span["name"] for span in healthy.spans] == ["sqlite.query"], "the program is traced as ever"


def test_agent_down(run):
    port = free_port()
    done = run(PROGRAM, doctor=DOCTOR, DD_TRACE_AGENT_URL=f"http://{HOST}:{port}")
    assert done.returncode == 1
    line = finding(done, "Agent")
    assert f":{port} cannot be reached: connection refused; fix: start the Agent" in line


def test_no_socket(run, tmp_path):
    done = run(PROGRAM, doctor=DOCTOR, DD_TRACE_AGENT_URL=f"unix://{tmp_path}/absent/apm.socket")
    assert f"there is no such socket; fix: mount the Agent's {tmp_path}/absent" in finding(done, "socket")


def test_library_too_old(run, healthy, distribution):
    distribution("redis", "", {}, version="2.5")
    done = run("import redis", doctor=DOCTOR)
    assert finding(done, "redis") == (
        "warning: redis is not traced: redis>=2.6 is required, 2.5 is installed; fix: pip install -U 'redis >= 2.6'"
    )


@pytest.mark.parametrize(
    ("variable", "value", "fix"),
    [
        ("DD_TRACE_SQLITE_ENABLED", "false", "unset DD_TRACE_SQLITE_ENABLED"),
        ("SPANBRIDGE_SQLITE3_ENABLED", "0", "unset SPANBRIDGE_SQLITE3_ENABLED"),
        ("SPANBRIDGE_DISABLED", "sqlite3", "take sqlite3 out of SPANBRIDGE_DISABLED"),
        (
            "OTEL_PYTHON_DISABLED_INSTRUMENTATIONS",
            "sqlite3",
            "take sqlite3 out of OTEL_PYTHON_DISABLED_INSTRUMENTATIONS",
        ),
        ("DD_PATCH_MODULES", "sqlite3:false", "unset DD_PATCH_MODULES"),
    ],
)
def test_instrumentation_disabled(run, healthy, variable, value, fix):
    done = run(PROGRAM, doctor=DOCTOR, **{variable: value})
    line = finding(done, "sqlite3")
    assert variable in line.partition("; fix: ")[0]
    assert line.endswith(f"; fix: {fix}")


def test_the_others_disabled_by_a_list_of_enabled_ones(run, healthy):
    done = run(PROGRAM, doctor=DOCTOR, SPANBRIDGE_ENABLED="sqlite3")
    assert finding(done, "httplib").endswith("; fix: add httplib to SPANBRIDGE_ENABLED")
    assert row(done, "sqlite3")[2] == "active"


def test_contrib_installed_too(run, healthy, distribution):
    source = "class Instrumentor:\n    def instrument(self, **kwargs): ..."
    entry = {"opentelemetry_instrumentor": {"sqlite3": "opentelemetry_sqlite3:Instrumentor"}}
    distribution("opentelemetry-sqlite3", source, entry)
    line = finding(run(PROGRAM, doctor=DOCTOR), "another instrumentor")
    assert "sqlite3 has another instrumentor installed (opentelemetry_sqlite3); spanbridge's is used" in line
    assert "SPANBRIDGE_PREFER=contrib" in line


def test_another_distro_in_charge(run, healthy, distribution):
    source = """
        from opentelemetry.instrumentation.distro import BaseDistro

        class Distro(BaseDistro):
            def _configure(self, **kwargs): ...
    """
    distribution("rival", source, {"opentelemetry_distro": {"rival": "rival:Distro"}})
    done = run(PROGRAM, doctor=DOCTOR, OTEL_PYTHON_DISTRO="rival")
    assert finding(done, "distro").endswith("; fix: set OTEL_PYTHON_DISTRO=spanbridge")


def test_ddtrace_in_the_same_process(run, healthy, distribution):
    distribution("ddtrace", "", {})
    done = run("import ddtrace\n", doctor=DOCTOR)
    assert done.returncode == 1
    assert "traced twice; fix: start it without ddtrace-run" in finding(done, "ddtrace is loaded")


@pytest.mark.parametrize(
    ("variable", "value", "fix"),
    [
        ("OTEL_SDK_DISABLED", "true", "unset OTEL_SDK_DISABLED"),
        ("DD_TRACE_ENABLED", "false", "unset DD_TRACE_ENABLED"),
    ],
)
def test_tracing_switched_off(run, healthy, variable, value, fix):
    done = run(PROGRAM, doctor=DOCTOR, **{variable: value})
    assert done.returncode == 1
    assert finding(done, "no spans are made").endswith(f"; fix: {fix}")


def test_no_exporter(run, healthy):
    done = run(PROGRAM, doctor=DOCTOR, OTEL_TRACES_EXPORTER="none")
    assert done.returncode == 1
    assert "no exporter takes them" in finding(done, "exporter")


def test_misspelt_names(run, healthy):
    done = run(PROGRAM, doctor=DOCTOR, SPANBRIDGE_DISABLED="flaks", SPANBRIDGE_SEMCON="contrib")
    assert finding(done, "flaks").endswith("; fix: did you mean flask?")
    assert finding(done, "SEMCON").endswith("; fix: did you mean SPANBRIDGE_SEMCONV?")


def test_a_program_that_uses_nothing(run, healthy):
    done = run("print('nothing')", doctor=DOCTOR, SPANBRIDGE_ENABLED="sqlite3")
    assert "imported none of the libraries" in finding(done, "imported")


def test_an_agent_without_traces(run, agent):
    agent.info = {"version": "7.60.0", "endpoints": ["/v0.6/stats"]}
    assert "apm_config.enabled" in finding(run(PROGRAM, doctor=DOCTOR), "receiver")


def test_for_machines(run, healthy):
    report = json.loads(run(PROGRAM, doctor=(*DOCTOR, "--json", "--send"), DD_SERVICE="shop", DD_ENV="ci").stdout)
    assert report["agent"]["sent"] is True
    assert [span["name"] for span in healthy.spans] == ["sqlite.query", "internal"]
    configuration = {row["name"]: row for row in report["configuration"]}
    assert configuration["service"] == {"name": "service", "value": "shop", "origin": "DD_SERVICE"}
    assert configuration["env"]["origin"] == "DD_ENV"
    assert configuration["version"]["origin"] == "default"
    states = {row["name"]: (row["state"], row["spans"]) for row in report["integrations"]}
    assert states["sqlite3"] == ("active", 1)


def test_no_secret_in_the_report(run, healthy):
    done = run(PROGRAM, doctor=DOCTOR, OTEL_EXPORTER_OTLP_HEADERS="authorization=secret")
    assert "OTEL_EXPORTER_OTLP_HEADERS" in done.stdout
    assert "secret" not in done.stdout


def test_a_server_is_interrupted(run, healthy):
    program = PROGRAM + "    import time\n    time.sleep(60)\n"
    done = run(program, doctor=(*DOCTOR, "--seconds", "3"))
    assert row(done, "sqlite3")[2:4] == ["active", "1"]


def test_processes_of_one_program_are_counted_together(run, healthy):
    program = """
        import os, sqlite3, sys
        child = os.fork()
        sqlite3.connect(":memory:").execute("SELECT 1")
        if child:
            os.waitpid(child, 0)
    """
    assert row(run(program, doctor=DOCTOR), "sqlite3")[3] == "2"


def test_a_command_that_does_not_exist():
    command = [sys.executable, "-m", "spanbridge", "doctor", "--", "/no/such/program"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert "/no/such/program" in done.stderr


def test_the_same_at_the_start_of_any_program(run, healthy):
    done = run(PROGRAM, SPANBRIDGE_DEBUG="1")
    assert done.stdout == "42\n"
    assert "waiting for import" in done.stderr
    assert "\nFindings\n" in done.stderr
    assert "Findings" not in run(PROGRAM, SPANBRIDGE_DEBUG="0").stderr


def test_what_answers_is_no_agent(agent):
    agent.info = ["a list"]  # type: ignore[assignment]
    assert agents.ask(agent.url).problem == "what answers is no Datadog Agent"


def test_an_agent_without_info(agent):
    assert "update it" in agents.ask(agent.url).advice


def test_listing():
    done = subprocess.run(
        [sys.executable, "-m", "spanbridge", "list"], capture_output=True, text=True, timeout=60, check=False
    )
    found = {line.split()[0]: line for line in done.stdout.splitlines()}
    assert "standard library" in found["sqlite3"]
    assert "waiting for import" in found["sqlite3"]
