"""One request, one deadline: what the transport sends, and what it makes of answers."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from contextlib import suppress
from threading import Thread
from typing import TYPE_CHECKING, Any

import pytest

from spanbridge.exporters.datadog.container import container_headers
from spanbridge.exporters.datadog.transport import Request, Transport, client_headers, describe
from spanbridge.version import __version__

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    Script = Callable[[socket.socket], None]

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nOK"


class Peer:
    """A listener; each connection is served by a script, the requests' bytes are kept."""

    def __init__(self, listener: socket.socket, script: Callable[[Peer, socket.socket], None]) -> None:
        self.listener = listener
        self.connections = 0
        self.requests: list[bytes] = []
        self._script = script
        Thread(target=self._accept, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.listener.getsockname()[1]}"

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self.listener.accept()
                self.connections += 1
                Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, suppress(OSError):
            self._script(self, connection)

    def request(self, connection: socket.socket) -> bytes:
        """Read one request; b"" at the end."""
        data = b""
        while b"\r\n\r\n" not in data:
            if not (more := connection.recv(65536)):
                return b""
            data += more
        head, _, body = data.partition(b"\r\n\r\n")
        length = int(head.partition(b"Content-Length: ")[2].split(b"\r\n")[0])
        while len(body) < length:
            body += connection.recv(65536)
        self.requests.append(head + b"\r\n\r\n" + body)
        return self.requests[-1]


@pytest.fixture
def peer() -> Iterator[Callable[..., Peer]]:
    listeners: list[socket.socket] = []

    def start(script: Any, listener: socket.socket | None = None) -> Peer:
        listener = listener or socket.create_server(("127.0.0.1", 0))
        listeners.append(listener)
        return Peer(listener, script)

    yield start
    for listener in listeners:
        with suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()


@pytest.fixture
def transport() -> Iterator[Callable[..., Transport]]:
    made: list[Transport] = []

    def make(url: str, **headers: str) -> Transport:
        made.append(Transport(url, headers))
        return made[-1]

    yield make
    for each in made:
        each.close()


def answers(*pieces: bytes, keep: bool = True) -> Any:
    def script(peer: Peer, connection: socket.socket) -> None:
        while peer.request(connection):
            for piece in pieces:
                connection.sendall(piece)
                time.sleep(0.001)
            if not keep:
                return

    return script


def test_a_request(peer: Any, transport: Any) -> None:
    there = peer(answers(ANSWER))
    reply = transport(there.url + "/prefix/", Some="header").send(
        Request("/v0.4/traces", b"\x91\x90", {"X-Datadog-Trace-Count": 1}), 2
    )
    assert (reply.status, reply.body) == (200, b"OK")
    host = there.url.removeprefix("http://")
    assert there.requests == [
        f"POST /prefix/v0.4/traces HTTP/1.1\r\nHost: {host}\r\nSome: header\r\n"
        "X-Datadog-Trace-Count: 1\r\nContent-Length: 2\r\n\r\n".encode()
        + b"\x91\x90"
    ]


def test_the_connection_is_kept(peer: Any, transport: Any) -> None:
    there = peer(answers(ANSWER))
    client = transport(there.url)
    for _ in range(3):
        assert client.send(Request("/v0.4/traces", b"x"), 2).status == 200
    assert (there.connections, len(there.requests)) == (1, 3)
    client.close()
    assert client.send(Request("/v0.4/traces", b"x"), 2).status == 200
    assert there.connections == 2


def test_a_connection_that_went_stale_is_replaced_once(peer: Any, transport: Any) -> None:
    there = peer(answers(ANSWER, keep=False))
    client = transport(there.url)
    for _ in range(3):
        assert client.send(Request("/v0.4/traces", b"x" * 100_000), 2).status == 200
        time.sleep(0.05)
    assert (there.connections, len(there.requests)) == (3, 3)


@pytest.mark.parametrize(
    "head", [b"HTTP/1.0 200 OK\r\n", b"HTTP/1.1 200 OK\r\nConnection: Close\r\n"], ids=["HTTP/1.0", "close"]
)
def test_a_connection_is_not_kept_against_the_receivers_will(peer: Any, transport: Any, head: bytes) -> None:
    there = peer(answers(head + b"Content-Length: 2\r\n\r\nOK"))
    client = transport(there.url)
    client.send(Request("/v0.4/traces", b"x"), 2)
    client.send(Request("/v0.4/traces", b"x"), 2)
    assert there.connections == 2


@pytest.mark.parametrize(
    ("pieces", "status", "body"),
    [
        ([b"HTTP/1.1 200 OK\r\ncontent-LENGTH:2\r\n\r\n", b"O", b"K"], 200, b"OK"),
        ([b"HTTP/1.1 100 Continue\r\n\r\n" + ANSWER], 200, b"OK"),
        ([b"HTTP/1.1 204 None\r\n\r\n"], 204, b""),
        ([b"HTTP/1.1 429\r\nContent-Length: 0\r\n\r\n"], 429, b""),
        ([b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nO\r\n1;x=y\r\n", b"K\r\n0\r\n\r\n"], 200, b"OK"),
    ],
)
def test_answers(peer: Any, transport: Any, pieces: list[bytes], status: int, body: bytes) -> None:
    there = peer(answers(*pieces))
    client = transport(there.url)
    for _ in range(2):
        assert client.send(Request("/v0.4/traces", b"x"), 2)[:2] == (status, body)
    assert there.connections == 1


def test_an_answer_may_end_with_the_connection(peer: Any, transport: Any) -> None:
    there = peer(answers(b"HTTP/1.1 200 OK\r\n\r\n", b"OK", keep=False))
    assert transport(there.url).send(Request("/v0.4/traces", b"x"), 2).body == b"OK"


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 200 OK\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nOK",
        b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
        b"HTTP/1.1 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nfffffff\r\n",
        b"\x00" * 100_000,
        b"HTTP/1.1 200 OK\r\n" + b"x" * 100_000,
    ],
)
def test_answers_that_are_none_raise_os_errors(peer: Any, transport: Any, answer: bytes) -> None:
    there = peer(answers(answer, keep=False))
    with pytest.raises(ConnectionError) as raised:
        transport(there.url).send(Request("/v0.4/traces", b"x"), 2)
    assert describe(raised.value)


def test_endless_bodies_are_cut(peer: Any, transport: Any) -> None:
    there = peer(answers(b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * (3 << 20), keep=False))
    assert 1 << 20 <= len(transport(there.url).send(Request("/v0.4/traces", b"x"), 5).body) < 2 << 20
    there = peer(answers(b"HTTP/1.1 200 OK\r\nContent-Length: 900000000\r\n\r\n" + b"x" * (3 << 20), keep=False))
    assert len(transport(there.url).send(Request("/v0.4/traces", b"x"), 5).body) == 1 << 20


def test_a_receiver_that_never_answers(peer: Any, transport: Any) -> None:
    there = peer(lambda peer, connection: peer.request(connection) and peer.request(connection))
    begun = time.monotonic()
    with pytest.raises(TimeoutError) as raised:
        transport(there.url).send(Request("/v0.4/traces", b"x"), 0.2)
    assert 0.15 < time.monotonic() - begun < 2
    assert describe(raised.value) == "no answer in time"
    assert len(there.requests) == 1


def test_a_receiver_that_drips_does_not_move_the_deadline(peer: Any, transport: Any) -> None:
    def drip(peer: Peer, connection: socket.socket) -> None:
        peer.request(connection)
        for _ in range(1000):
            connection.sendall(b"H")
            time.sleep(0.02)

    begun = time.monotonic()
    with pytest.raises(TimeoutError):
        transport(peer(drip).url).send(Request("/v0.4/traces", b"x"), 0.3)
    assert time.monotonic() - begun < 2


def test_a_receiver_that_never_reads(peer: Any, transport: Any) -> None:
    there = peer(lambda peer, connection: time.sleep(3))
    begun = time.monotonic()
    with pytest.raises(TimeoutError):
        transport(there.url).send(Request("/v0.4/traces", b"x" * (32 << 20)), 0.3)
    assert time.monotonic() - begun < 2.5


def test_a_receiver_that_refuses_a_large_body_early_is_heard(peer: Any, transport: Any) -> None:
    def refuse(peer: Peer, connection: socket.socket) -> None:
        connection.recv(1000)
        connection.sendall(b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        connection.shutdown(socket.SHUT_WR)
        while connection.recv(1 << 20):
            pass

    assert transport(peer(refuse).url).send(Request("/v0.4/traces", b"x" * (8 << 20)), 5).status == 413


def test_nobody_there(transport: Any, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    with pytest.raises(ConnectionRefusedError) as raised:
        transport(f"http://127.0.0.1:{port}").send(Request("/v0.4/traces", b"x"), 2)
    assert describe(raised.value) == "connection refused"
    with pytest.raises(OSError) as missing:
        transport(f"unix://{tmp_path}/none").send(Request("/v0.4/traces", b"x"), 2)
    assert "No such file" in describe(missing.value)
    with pytest.raises(OSError):
        transport("http://does-not-exist.invalid:8126").send(Request("/v0.4/traces", b"x"), 2)


def test_unix_sockets(peer: Any, transport: Any, tmp_path: Path) -> None:
    path = tmp_path / "a b.socket"
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen()
    there = peer(answers(ANSWER), listener)
    client = transport(f"unix://{str(path).replace(' ', '%20')}")
    for _ in range(2):
        assert client.send(Request("/v0.4/traces", b"x"), 2).status == 200
    assert there.connections == 1
    assert there.requests[0].startswith(b"POST /v0.4/traces HTTP/1.1\r\nHost: localhost\r\n")


def test_ipv6(peer: Any, transport: Any) -> None:
    try:
        listener = socket.create_server(("::1", 0), family=socket.AF_INET6)
    except OSError as error:
        pytest.skip(f"no IPv6: {error}")
    there = peer(answers(ANSWER), listener)
    assert transport(f"http://[::1]:{listener.getsockname()[1]}").send(Request("/v0.4/traces", b"x"), 2).status == 200
    assert b"Host: [::1]:" in there.requests[0]


def test_https_is_spoken_where_the_url_says_so(peer: Any, transport: Any) -> None:
    hello: list[bytes] = []
    there = peer(lambda peer, connection: hello.append(connection.recv(3)))
    with pytest.raises(OSError):
        transport(there.url.replace("http:", "https:")).send(Request("/v0.4/traces", b"x"), 2)
    assert hello[0][:2] == b"\x16\x03"  # a TLS handshake


def test_threads_take_turns(peer: Any, transport: Any) -> None:
    there = peer(answers(ANSWER))
    client = transport(there.url)
    replies: list[int] = []
    threads = [
        Thread(target=lambda: replies.append(client.send(Request("/v0.4/traces", b"x" * 10_000), 5).status))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert replies == [200] * 8
    assert there.connections == 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_forked_child_has_a_connection_of_its_own(peer: Any, transport: Any) -> None:
    there = peer(answers(ANSWER))
    client = transport(there.url)
    client.send(Request("/v0.4/traces", b"x"), 2)
    if (child := os.fork()) == 0:
        os._exit(0 if client.send(Request("/v0.4/traces", b"x"), 2).status == 200 else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert client.send(Request("/v0.4/traces", b"x"), 2).status == 200
    assert (there.connections, len(there.requests)) == (2, 3)


def test_constant_headers() -> None:
    headers = client_headers("it-false,cn-app")
    assert (
        headers.items()
        >= {
            "Content-Type": "application/msgpack",
            "Datadog-Meta-Lang": "python",
            "Datadog-Meta-Lang-Version": ".".join(map(str, sys.version_info[:3])),
            "Datadog-Meta-Tracer-Version": __version__,
            "Datadog-Client-Computed-Top-Level": "true",
            "Datadog-Send-Real-Http-Status": "1",
            "Datadog-External-Env": "it-false,cn-app",
        }.items()
    )
    assert "Datadog-External-Env" not in client_headers("evil\r\nX: y")
    assert "Datadog-External-Env" not in client_headers()


def test_nothing_heavy_is_imported_by_importing_or_by_a_first_request() -> None:
    program = """
import sys
from opentelemetry.sdk.trace import TracerProvider
import opentelemetry.sdk.trace.export
provider = TracerProvider()
# What OpenTelemetry has imported, older versions for instance asyncio, is none of ours.
heavy = {"ssl", "http.client", "urllib3", "requests", "asyncio", "urllib.request"} - set(sys.modules)
from spanbridge.exporters.datadog import DatadogSpanProcessor
provider.add_span_processor(DatadogSpanProcessor())
print(sorted(heavy & set(sys.modules)))
provider.get_tracer("app").start_span("work").end()
provider.shutdown()
print(sorted(heavy & set(sys.modules)))
"""
    environment = os.environ | {"DD_TRACE_AGENT_URL": "http://127.0.0.1:1"}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split("\n") == ["[]", "[]", ""]


# --- containers

ID = "34dc0b5e626f2c5c4c5170e34b10e7654ce36f0fcd532739f4445baabea03376"
UUID = "34dc0b5e-626f-2c5c-4c51-70e34b10e765"


def _machine(root: Path, cgroup: str) -> Path:
    (root / "proc/self/ns").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text(cgroup)
    (root / "proc/self/ns/cgroup").touch()
    return root


@pytest.mark.parametrize(
    ("cgroup", "container"),
    [
        (f"13:name=systemd:/docker/{ID}\n12:pids:/docker/{ID}\n", ID),
        (f"1:name=systemd:/kubepods.slice/kubepods-pod1.slice/cri-containerd-{ID}.scope\n", ID),
        (f"1:name=systemd:/kubepods/besteffort/pod3d274242-8ee0-11e9-a8a6-1e68d864ef1a/{ID}\n", ID),
        (f"1:name=systemd:/ecs/{UUID}/432624d2150b349fe35ba397284dea788c2bf66b885d14dfc1569b01890ca7da-3\n", None),
        ("9:memory:/ecs/5a0d5ceddf6c44c1928d367a815d890f/5a0d5ceddf6c44c1928d367a815d890f-2531612879\n",
         "5a0d5ceddf6c44c1928d367a815d890f-2531612879"),
        (f"1:name=systemd:/garden/{UUID}\n", UUID),
        (f"0::/system.slice/docker-{ID}.scope/init \n", ID),
    ],
)  # fmt: skip
def test_containers_are_found_by_their_cgroup(tmp_path: Path, cgroup: str, container: str | None) -> None:
    headers = container_headers(_machine(tmp_path, cgroup))
    if container is None:
        assert "Datadog-Container-ID" not in headers
    else:
        assert headers == {"Datadog-Container-ID": container, "Datadog-Entity-ID": f"ci-{container}"}


@pytest.mark.parametrize(
    ("line", "node"), [("0::/some/path", "some/path"), ("9:memory:/some/path", "memory/some/path")]
)
def test_a_cgroup_without_container_id_is_named_by_its_inode(tmp_path: Path, line: str, node: str) -> None:
    root = _machine(tmp_path, line + "\n")
    assert container_headers(root) == {}
    directory = root / "sys/fs/cgroup" / node
    directory.mkdir(parents=True)
    assert container_headers(root) == {"Datadog-Entity-ID": f"in-{directory.stat().st_ino}"}


@pytest.mark.parametrize("cgroup", ["", "junk", "0::/\n", "1:cpu:/user.slice\n"])
def test_no_container(tmp_path: Path, cgroup: str) -> None:
    assert container_headers(tmp_path) == {}
    assert container_headers(_machine(tmp_path, cgroup)) == {}
