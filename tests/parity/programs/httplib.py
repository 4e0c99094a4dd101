# /// script
# dependencies = ["flask==3.1.3"]
# [tool.parity]
# variables = { DD_TRACE_HTTPLIB_ENABLED = "1" }
# [[tool.parity.differences]]
# reason = "within a span of the same service ddtrace's is neither measured nor top-level"
# side = "spanbridge"
# pattern = "http.client.request.*202"
# ///
"""http.client and urllib.request against a Flask application, which continues their traces and calls itself.

Not requests put together by `putrequest` and `putheader`, which ddtrace gives no context.
"""

from __future__ import annotations

import http.client
import threading
import urllib.error
import urllib.request

from flask import Flask, redirect, request
from werkzeug.serving import WSGIRequestHandler, make_server

HOST = "127.0.0.1"
app = Flask("shop")


class Quiet(WSGIRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_request(self, *arguments: object) -> None:
        pass


@app.route("/items/<int:item>", methods=["GET", "POST", "HEAD"])
def show(item: int) -> str:
    return "item" * item


@app.route("/returned/<int:code>")
def returned(code: int) -> tuple[str, int]:
    return "", code


@app.route("/moved")
def moved() -> object:
    return redirect("/items/1")


@app.route("/call")
def call() -> str:
    connection = http.client.HTTPConnection(request.host)
    connection.request("GET", "/returned/202")
    answer = connection.getresponse()
    answer.read()
    connection.close()
    return str(answer.status)


def main() -> None:
    server = make_server(HOST, 0, app, threaded=True, request_handler=Quiet)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://{HOST}:{server.server_port}"

    connection = http.client.HTTPConnection(HOST, server.server_port)
    for method, path in (
        ("GET", "/items/3"),
        ("GET", "/items/3?token=abc&q=1"),
        ("HEAD", "/items/3"),
        ("POST", "/items/3"),
        ("PUT", "/items/3"),
        ("GET", "/nowhere"),
        ("GET", "/returned/401"),
        ("GET", "/returned/500"),
        ("GET", "/returned/503"),
        ("GET", "/returned/204"),
        ("GET", "/moved"),
        ("GET", "/call"),
    ):
        connection.request(method, path, body=b"x" if method == "POST" else None)
        answer = connection.getresponse()
        print(method, path, answer.status, len(answer.read()))
    connection.close()

    with urllib.request.urlopen(f"{url}/items/2") as answer:
        print(len(answer.read()))
    with urllib.request.urlopen(f"{url}/moved") as answer:
        print(len(answer.read()))
    for path in ("/nowhere", "/returned/502"):
        try:
            urllib.request.urlopen(url + path)
        except urllib.error.HTTPError as error:
            print(path, error.code)
            error.close()
    try:
        urllib.request.urlopen(f"http://{HOST}:1/refused")
    except urllib.error.URLError as error:
        print(type(error.reason).__name__)
    server.shutdown()


main()
