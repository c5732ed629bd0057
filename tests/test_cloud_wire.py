"""What really crosses the wire: the bytes of a purchase, how often they are sent, and connections that break."""

import hashlib
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from pydantic import SecretStr

from autoscaler.cloud import Cloud
from autoscaler.cloud.client import purchase_body
from autoscaler.model import Accepted, Answer, Gap, GapReason, Inventory, RefusalClass, Refused, Unclear
from autoscaler.signing import Credential, sign
from tests import build

CREDENTIAL = Credential("LTAI-id", SecretStr("the-key-secret"))
WORKER = build.policy().worker
PASSWORD = SecretStr("Edge-pass-1")
PURCHASE = build.purchase(cluster_id="c1", state="sending")
NOW = datetime(2026, 6, 1, 10, 0, tzinfo=UTC)

Serve = Callable[[socket.socket, bytes], None]  # the connection, and the request read from it


class WireServer:
    """Accepts on loopback and hands each whole request to ``serve``; ``requests`` has their bytes."""

    def __init__(self, serve: Serve, tls: ssl.SSLContext | None = None) -> None:
        self.requests: list[bytes] = []
        self.connections = 0
        self._serve = serve
        self._tls = tls
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def url(self) -> str:
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self.port}"

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)  # else the accept under way keeps it open
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                self.connections += 1
                threading.Thread(target=self._handle, args=(connection,), daemon=True).start()

    def _handle(self, connection: socket.socket) -> None:
        with suppress(OSError):
            if self._tls is not None:
                connection = self._tls.wrap_socket(connection, server_side=True)
            with connection:
                while request := self._read(connection):
                    self.requests.append(request)
                    self._serve(connection, request)

    def _read(self, connection: socket.socket) -> bytes:
        read = b""
        while b"\r\n\r\n" not in read:
            chunk = connection.recv(65536)
            if not chunk:
                return b""
            read += chunk
        head, _, body = read.partition(b"\r\n\r\n")
        length = next(
            (int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")), 0
        )
        while len(body) < length:
            body += connection.recv(65536)
        return head + b"\r\n\r\n" + body


@contextmanager
def serving(serve: Serve, tls: ssl.SSLContext | None = None) -> Iterator[WireServer]:
    server = WireServer(serve, tls)
    try:
        yield server
    finally:
        server.close()


def cloud_at(url: str, *, timeout: float = 5, trust_env: bool = False) -> Cloud:
    return Cloud(url, lambda: CREDENTIAL, timeout=timedelta(seconds=timeout), clock=lambda: NOW, trust_env=trust_env)


def buy(server: WireServer, *, timeout: float = 5) -> Answer:
    return cloud_at(server.url, timeout=timeout).scale_out(PURCHASE, WORKER, PASSWORD)


def answering(body: bytes, status: str = "202 Accepted", length: int | None = None) -> Serve:
    head = f"HTTP/1.1 {status}\r\nContent-Length: {len(body) if length is None else length}\r\n\r\n"

    def serve(connection: socket.socket, request: bytes) -> None:
        connection.sendall(head.encode() + body)
        if length is not None:
            connection.close()

    return serve


def cut(connection: socket.socket, request: bytes) -> None:
    connection.close()


def dripping(connection: socket.socket, request: bytes) -> None:
    connection.sendall(b"HTTP/1.1 202 Accepted\r\nContent-Length: 100000\r\n\r\n")
    while True:
        connection.sendall(b" ")
        time.sleep(0.02)


def dripping_headers(connection: socket.socket, request: bytes) -> None:
    connection.sendall(b"HTTP/1.1 202 Accepted\r\nX-Slow: ")
    while True:
        connection.sendall(b"a")
        time.sleep(0.02)


def silent(connection: socket.socket, request: bytes) -> None:
    connection.recv(1)


def head_and_body(request: bytes) -> tuple[str, dict[str, str], bytes]:
    head, _, body = request.partition(b"\r\n\r\n")
    line, *rest = head.decode().split("\r\n")
    return line, {k.lower(): v for k, v in (header.split(": ", 1) for header in rest)}, body


def test_the_bytes_that_are_sent_are_the_bytes_that_were_signed() -> None:
    with serving(answering(b'{"task_id": "T-1"}')) as server:
        assert buy(server) == Accepted("T-1")
    (request,) = server.requests
    line, headers, body = head_and_body(request)
    assert line == "POST /api/v2/clusters/c1 HTTP/1.1"
    assert body == purchase_body(3, WORKER, PASSWORD)
    assert headers["x-acs-content-sha256"] == hashlib.sha256(body).hexdigest()
    signed = sign(
        "POST",
        "/api/v2/clusters/c1",
        {},
        body,
        host=f"127.0.0.1:{server.port}",
        action="ScaleOutCluster",
        credential=CREDENTIAL,
        nonce=PURCHASE.nonce,
        at=PURCHASE.signed_at,
    )
    assert {name: headers[name] for name in signed} == signed
    assert (headers["accept"], headers["connection"]) == ("application/json", "close")


def test_each_purchase_has_a_connection_of_its_own() -> None:
    with serving(answering(b'{"task_id": "T-1"}')) as server:
        cloud = cloud_at(server.url)
        cloud.scale_out(PURCHASE, WORKER, PASSWORD)
        cloud.scale_out(PURCHASE, WORKER, PASSWORD)
    assert (server.connections, len(server.requests)) == (2, 2)


@pytest.mark.parametrize(
    "serve",
    [
        pytest.param(cut, id="cut before the answer"),
        pytest.param(answering(b'{"task_id": "T', length=100), id="cut within the answer"),
        pytest.param(answering(b"", status="503 Service Unavailable"), id="503 and nothing"),
        pytest.param(lambda connection, _: connection.sendall(b"hello\r\n\r\n"), id="not HTTP"),
        pytest.param(answering(b"", status="100 Continue"), id="an interim answer only"),
    ],
)
def test_a_purchase_whose_answer_is_lost_is_unclear_and_was_sent_once(serve: Serve) -> None:
    with serving(serve) as server:
        assert isinstance(buy(server, timeout=1), Unclear)
    assert (server.connections, len(server.requests)) == (1, 1)


@pytest.mark.parametrize(
    "serve",
    [
        pytest.param(silent, id="says nothing"),
        pytest.param(dripping, id="drips its body"),
        pytest.param(dripping_headers, id="drips its headers"),
    ],
)
def test_the_deadline_of_a_purchase_is_for_all_of_it(serve: Serve) -> None:
    with serving(serve) as server:
        began = time.monotonic()
        answer = buy(server, timeout=0.3)
        assert time.monotonic() - began < 2
    assert isinstance(answer, Unclear)
    assert len(server.requests) == 1


def test_a_refused_connection_bought_nothing() -> None:
    with serving(cut) as server:
        pass
    answer = buy(server)
    assert isinstance(answer, Refused)
    assert (answer.refusal, answer.code) == (RefusalClass.LATER, "ConnectError")


def test_the_deadline_of_a_look_is_for_all_of_it() -> None:
    with serving(dripping) as server:
        began = time.monotonic()
        gap = cloud_at(server.url, timeout=0.3).inventory("c1")
        assert time.monotonic() - began < 2
    assert isinstance(gap, Gap)
    assert gap == Gap(GapReason.TIMEOUT, "DescribeClusterDetail: not answered whole within 0.3 s")


def test_closing_ends_the_looks_under_way_at_once() -> None:
    asked = threading.Event()

    def hold(connection: socket.socket, request: bytes) -> None:
        asked.set()
        connection.recv(1)

    with serving(hold) as server:
        cloud = cloud_at(server.url, timeout=30)
        seen: list[Inventory | Gap] = []
        reader = threading.Thread(target=lambda: seen.append(cloud.inventory("c1")))
        reader.start()
        assert asked.wait(5)
        cloud.close()
        reader.join(5)
    assert [gap.reason for gap in seen if isinstance(gap, Gap)] == [GapReason.UNREACHABLE]


def test_closing_leaves_a_purchase_under_way_to_its_answer() -> None:
    asked, go_on = threading.Event(), threading.Event()

    def hold(connection: socket.socket, request: bytes) -> None:
        asked.set()
        go_on.wait(5)
        answering(b'{"task_id": "T-1"}')(connection, request)

    with serving(hold) as server:
        cloud = cloud_at(server.url)
        answers: list[Answer] = []
        buyer = threading.Thread(target=lambda: answers.append(cloud.scale_out(PURCHASE, WORKER, PASSWORD)))
        buyer.start()
        assert asked.wait(5)
        cloud.close()
        go_on.set()
        buyer.join(5)
    assert answers == [Accepted("T-1")]


# --- encrypted ---


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate of 127.0.0.1 that vouches for itself, with its key."""
    file = tmp_path_factory.mktemp("tls") / "certificate.pem"
    kind = ["-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
    subject = ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]
    files = ["-keyout", str(file), "-out", str(file.with_suffix(".crt"))]
    subprocess.run(["openssl", "req", *kind, *subject, *files], check=True, capture_output=True)
    file.write_text(file.read_text() + file.with_suffix(".crt").read_text())
    return file


@pytest.fixture
def tls(certificate: Path, monkeypatch: pytest.MonkeyPatch) -> ssl.SSLContext:
    """A server's side, trusted where the environment is."""
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate.with_suffix(".crt")))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    return context


def test_a_certificate_that_nobody_vouches_for_stops_a_purchase_before_it_is_sent(tls: ssl.SSLContext) -> None:
    with serving(answering(b'{"task_id": "T-1"}'), tls) as server:
        answer = cloud_at(server.url).scale_out(PURCHASE, WORKER, PASSWORD)
    assert isinstance(answer, Refused)
    assert (answer.refusal, answer.code) == (RefusalClass.LATER, "ConnectError")
    assert server.requests == []


def test_a_purchase_goes_over_a_verified_connection(tls: ssl.SSLContext) -> None:
    with serving(answering(b'{"task_id": "T-1"}'), tls) as server:
        assert cloud_at(server.url, trust_env=True).scale_out(PURCHASE, WORKER, PASSWORD) == Accepted("T-1")


def test_the_deadline_holds_for_an_encrypted_connection(tls: ssl.SSLContext) -> None:
    with serving(dripping, tls) as server:
        began = time.monotonic()
        answer = cloud_at(server.url, timeout=0.5, trust_env=True).scale_out(PURCHASE, WORKER, PASSWORD)
        assert time.monotonic() - began < 2
    assert isinstance(answer, Unclear)
    assert "no whole answer within 0.5 s" in answer.detail


def test_a_handshake_that_hangs_bought_nothing() -> None:
    with serving(silent) as server:
        answer = cloud_at(f"https://127.0.0.1:{server.port}", timeout=0.3).scale_out(PURCHASE, WORKER, PASSWORD)
    assert isinstance(answer, Refused)
    assert (answer.refusal, answer.code) in [
        (RefusalClass.LATER, "ConnectTimeout"),
        (RefusalClass.LATER, "ConnectError"),
    ]


# --- through a proxy ---


def test_a_proxy_is_used_only_where_the_environment_is_trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(answering(b"", status="407 Proxy Authentication Required")) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        monkeypatch.delenv("NO_PROXY", raising=False)
        monkeypatch.delenv("no_proxy", raising=False)
        with serving(cut) as gone:
            pass
        direct = cloud_at(f"https://127.0.0.1:{gone.port}").scale_out(PURCHASE, WORKER, PASSWORD)
        assert proxy.requests == []
        proxied = cloud_at("https://cs.invalid", trust_env=True).scale_out(PURCHASE, WORKER, PASSWORD)
    assert isinstance(direct, Refused)
    assert isinstance(proxied, Refused)
    assert (direct.code, proxied.code) == ("ConnectError", "ProxyError")
    assert [request.split(b"\r\n")[0] for request in proxy.requests] == [b"CONNECT cs.invalid:443 HTTP/1.1"]
