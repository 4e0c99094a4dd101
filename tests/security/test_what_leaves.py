"""What leaves the process: to the Agent's address and no other, and no secret of the application with it."""

from __future__ import annotations

import json

import pytest

from tests.launcher.conftest import agent, distribution, run  # noqa: F401 - fixtures

CANARY = "hunter2"
# The secret comes from outside: a traceback shows lines of source.
PROGRAM = """
    import json, os, sqlite3, sys
    SECRET = os.environ["SHOP_SECRET"]
    reached = []
    sys.addaudithook(lambda event, args: event == "socket.connect" and reached.append(args[1]))

    import requests
    from flask import Flask

    app = Flask("shop")

    @app.route("/items/<item>")
    def show(item):
        query = f"SELECT 1 AS x WHERE '{SECRET}' = '{SECRET}' OR 4111111111111111 = 1"
        sqlite3.connect(":memory:").execute(query)
        for url in (f"http://user:{SECRET}@127.0.0.1:9/?password={SECRET}", f"http://127.0.0.1:9/?api_key={SECRET}"):
            try:
                requests.get(url, headers={"Authorization": f"Bearer {SECRET}", "Cookie": f"session={SECRET}"})
            except requests.RequestException:
                pass
        return "ok"

    headers = {"Authorization": f"Basic {SECRET}", "Cookie": f"session={SECRET}", "X-Api-Key": SECRET}
    app.test_client().get(f"/items/7?token={SECRET}&access_token={SECRET}&page=2", headers=headers)
    import spanbridge
    spanbridge.flush()
    print(json.dumps(reached))
"""


def test_no_secret_and_no_other_address(run, agent):  # noqa: F811
    pytest.importorskip("flask")
    pytest.importorskip("requests")
    done = run(PROGRAM, SHOP_SECRET=CANARY, DD_SERVICE="shop")
    assert done.returncode == 0, done.stderr
    names = {span["name"] for span in agent.spans}
    assert {"flask.request", "requests.request", "sqlite.query"} <= names
    leaks = [key for span in agent.spans for key, value in span["meta"].items() if CANARY in value]
    assert not leaks
    assert CANARY not in json.dumps(agent.spans)
    assert "4111111111111111" not in json.dumps(agent.spans)
    assert CANARY not in done.stderr
    reached = {tuple(address) for address in json.loads(done.stdout) if isinstance(address, list)}
    assert {port for _, port, *_ in reached} == {agent.server_address[1], 9}, "9 is where the application goes itself"


def test_headers_that_are_asked_for_are_shown_and_secret_ones_masked(run, agent):  # noqa: F811
    pytest.importorskip("flask")
    program = PROGRAM.replace('"X-Api-Key"', '"X-Shop"')
    done = run(
        program,
        SHOP_SECRET=CANARY,
        OTEL_INSTRUMENTATION_HTTP_CAPTURE_HEADERS_SERVER_REQUEST="x-shop,authorization",
        OTEL_INSTRUMENTATION_HTTP_CAPTURE_HEADERS_SANITIZE_FIELDS="x-shop",
    )
    assert done.returncode == 0, done.stderr
    assert "[REDACTED]" in json.dumps(agent.spans)
