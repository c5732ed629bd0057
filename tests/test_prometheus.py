"""Each way a Prometheus can fail, by the name of its gap; and what is sent to it, secrets included."""

import json
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from fractions import Fraction
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from pydantic import SecretStr

from autoscaler.model import Gap, GapReason, Question, Reading
from autoscaler.prometheus import Course, Prometheus, Server

NOW = datetime(2026, 6, 1, 10, 0, tzinfo=UTC)
ONE = Reading(Fraction(1), None)


def vector(*values: str, **more: object) -> bytes:
    rows = [{"metric": {"site": str(n)}, "value": [0, value]} for n, value in enumerate(values)]
    return json.dumps({"status": "success", "data": {"resultType": "vector", "result": rows}, **more}).encode()


def scalar(value: str) -> bytes:
    return json.dumps({"status": "success", "data": {"resultType": "scalar", "result": [0, value]}}).encode()


def error(kind: str, text: str) -> bytes:
    return json.dumps({"status": "error", "errorType": kind, "error": text}).encode()


@dataclass
class Reply:
    body: bytes = field(default_factory=lambda: vector("1"))
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    date: datetime | None = NOW
    announced: int | None = None  # Content-Length, where it is a lie


@dataclass(frozen=True)
class Call:
    path: str
    params: dict[str, str]
    headers: dict[str, str]
    peer: tuple[str, int]


class FakePrometheus:
    """A server that gives ``reply`` to every call, or does ``misbehave`` with the bare connection."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self.calls: list[Call] = []
        self.reply = Reply()
        self.replies: dict[str, Reply] = {}  # by query, before ``reply``
        self.misbehave: Callable[[socket.socket], None] | None = None
        self.closing = threading.Event()
        fake = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                url = urlsplit(self.path)
                params = {name: values[0] for name, values in parse_qs(url.query).items()}
                fake.calls.append(Call(url.path, params, dict(self.headers), self.client_address))
                if fake.misbehave:
                    fake.misbehave(self.connection)
                    self.close_connection = True
                    return
                reply = fake.replies.get(params.get("query", ""), fake.reply)
                self.send_response_only(reply.status)
                if reply.date:
                    self.send_header("Date", format_datetime(reply.date, usegmt=True))
                for name, value in reply.headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(reply.announced or len(reply.body)))
                self.end_headers()
                self.wfile.write(reply.body)
                self.close_connection = reply.announced is not None

            def log_message(self, *_: Any) -> None:
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.handle_error = lambda *_: None  # type: ignore[method-assign]  # clients that hang up are the point
        if tls:
            self._http.socket = tls.wrap_socket(self._http.socket, server_side=True)
        self.address = f"127.0.0.1:{self._http.server_port}"
        self.url = f"http{'s' if tls else ''}://{self.address}"
        threading.Thread(target=self._http.serve_forever, args=(0.01,), daemon=True).start()

    def close(self) -> None:
        self.closing.set()
        self._http.shutdown()
        self._http.server_close()


@pytest.fixture
def fake() -> Iterator[FakePrometheus]:
    server = FakePrometheus()
    yield server
    server.close()


@pytest.fixture
def connect() -> Iterator[Callable[..., Prometheus]]:
    """Makes the edge under test for a server, with the server's parts and a clock; closes it at the end."""
    made: list[Prometheus] = []

    def prometheus(url: str, *, clock: Callable[[], datetime] = lambda: NOW, **parts: Any) -> Prometheus:
        made.append(Prometheus(Server(url, **parts), clock=clock))
        return made[-1]

    yield prometheus
    for each in made:
        each.close()


Connect = Callable[..., Prometheus]


def ask(prometheus: Prometheus, query: str = "vector(1)", max_age: timedelta | None = None) -> Reading | Gap:
    [answer] = prometheus.read([Question(query, max_age)], NOW)
    return answer


def reason(answer: Reading | Gap) -> GapReason:
    assert isinstance(answer, Gap), answer
    return answer.reason


# --- answers ---


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (vector("1"), ONE),
        (scalar("2.5"), Reading(Fraction(5, 2), None)),
        (vector("1e+06"), Reading(Fraction(1_000_000), None)),
        (vector("0.1"), Reading(Fraction(1, 10), None)),
        (vector("-3"), Reading(Fraction(-3), None)),
        (vector(), Gap(GapReason.NO_DATA, "the query has no result")),
        (
            vector("1", "1", "1"),
            Gap(GapReason.SEVERAL_SERIES, '3 series where one is needed, such as {site="0"}, {site="1"}'),
        ),
        (vector("NaN"), Gap(GapReason.NOT_A_NUMBER, "the result is NaN")),
        (scalar("NaN"), Gap(GapReason.NOT_A_NUMBER, "the result is NaN")),
        (vector("+Inf"), Gap(GapReason.INFINITE, "the result is +Inf")),
        (vector("-Inf"), Gap(GapReason.INFINITE, "the result is -Inf")),
        (
            vector("1", warnings=["store 3 is down", "store 4 is down"]),
            Gap(GapReason.PARTIAL_ANSWER, "store 3 is down; store 4 is down"),
        ),
        (vector("1", infos=["metric might not be a counter"]), ONE),
        (vector("1", warnings=[]), ONE),
    ],
)
def test_an_answer_is_a_reading_or_a_gap(
    fake: FakePrometheus, connect: Connect, body: bytes, expected: Reading | Gap
) -> None:
    fake.reply = Reply(body)

    assert ask(connect(fake.url)) == expected


@pytest.mark.parametrize(
    "body",
    [
        b"<html>welcome</html>",
        b"",
        b"[1, 2]",
        b"null",
        b'{"status": "success"}',
        b'{"data": {"resultType": "vector", "result": null}}',
        b'{"data": {"resultType": "vector", "result": [1]}}',
        b'{"data": {"resultType": "vector", "result": [{"metric": {}, "value": []}]}}',
        b'{"data": {"resultType": "scalar", "result": [1, 2]}}',
        b"[" * 100_000,
        vector("many"),
        vector("1/2"),
        vector("1e999999999"),
    ],
    ids=lambda body: body[:70].decode(),
)
def test_what_prometheus_never_says_is_not_json(fake: FakePrometheus, connect: Connect, body: bytes) -> None:
    fake.reply = Reply(body)

    assert reason(ask(connect(fake.url))) == GapReason.NOT_JSON


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (400, error("bad_data", 'unknown function "x"'), (GapReason.BAD_QUERY, 'HTTP 400: unknown function "x"')),
        (422, error("execution", "too many samples"), (GapReason.BAD_QUERY, "HTTP 422: too many samples")),
        (404, b"<html>no such page", (GapReason.BAD_QUERY, "HTTP 404: Not Found")),
        (401, b"", (GapReason.UNAUTHORIZED, "HTTP 401: Unauthorized")),
        (403, error("forbidden", "not this tenant"), (GapReason.UNAUTHORIZED, "HTTP 403: not this tenant")),
        (408, b"", (GapReason.TIMEOUT, "HTTP 408: Request Timeout")),
        (429, b"slow down", (GapReason.SERVER_ERROR, "HTTP 429: Too Many Requests")),
        (500, error("internal", "disk\n full"), (GapReason.SERVER_ERROR, "HTTP 500: disk full")),
        (502, b"<html>", (GapReason.SERVER_ERROR, "HTTP 502: Bad Gateway")),
        (503, error("timeout", "query timed out"), (GapReason.TIMEOUT, "HTTP 503: query timed out")),
    ],
)
def test_a_refusal_is_a_gap_in_the_servers_own_words(
    fake: FakePrometheus, connect: Connect, status: int, body: bytes, expected: tuple[GapReason, str]
) -> None:
    fake.reply = Reply(body, status)

    assert ask(connect(fake.url)) == Gap(*expected)
    assert len(fake.calls) == 1  # nothing is retried


def test_a_long_message_is_cut(fake: FakePrometheus, connect: Connect) -> None:
    fake.reply = Reply(error("bad_data", "x" * 10_000), 400)

    answer = ask(connect(fake.url))

    assert isinstance(answer, Gap)
    assert len(answer.detail) == 300


# --- the clock ---


@pytest.mark.parametrize(
    ("date", "detail"),
    [
        (NOW, None),
        (NOW + timedelta(seconds=30), None),
        (NOW - timedelta(seconds=30), None),
        (None, None),
        (NOW + timedelta(seconds=32), "its clock is 32s ahead of ours"),
        (NOW - timedelta(seconds=92), "its clock is 1m32s behind ours"),
    ],
)
def test_a_clock_that_differs_is_a_gap(
    fake: FakePrometheus, connect: Connect, date: datetime | None, detail: str | None
) -> None:
    fake.reply = Reply(date=date)

    assert ask(connect(fake.url)) == (ONE if detail is None else Gap(GapReason.CLOCK, detail))


def test_a_date_that_is_none_says_nothing(fake: FakePrometheus, connect: Connect) -> None:
    fake.reply = Reply(date=None, headers={"Date": "yesterday"})

    assert ask(connect(fake.url)) == ONE


# --- what does not answer ---


def drip(first: bytes, then: bytes, fake: FakePrometheus, hung_up: threading.Event) -> Callable[[socket.socket], None]:
    def misbehave(connection: socket.socket) -> None:
        try:
            connection.sendall(first)
            while not fake.closing.wait(0.02):
                connection.sendall(then)
        except OSError:
            hung_up.set()

    return misbehave


@pytest.mark.parametrize(
    ("first", "then"),
    [
        (b"", b""),
        (b"HTTP/1.1 200 OK\r\n", b"X-More: 1\r\n"),
        (b"HTTP/1.1 200 OK\r\nX-Long: ", b"x"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n", b" "),
        (b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n", b" "),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\n \r\n"),
    ],
    ids=["silence", "headers", "one header", "a body", "a body without end", "chunks"],
)
def test_a_server_that_hangs_or_drips_is_cut_off_at_the_deadline(
    fake: FakePrometheus, connect: Connect, first: bytes, then: bytes
) -> None:
    hung_up = threading.Event()
    fake.misbehave = drip(first, then, fake, hung_up)
    prometheus = connect(fake.url, timeout=timedelta(seconds=0.2))
    before = datetime.now(UTC)

    assert ask(prometheus) == Gap(GapReason.TIMEOUT, "no answer within 200ms")
    assert datetime.now(UTC) - before < timedelta(seconds=2)
    if then:
        assert hung_up.wait(5)  # no thread of ours goes on listening
    fake.misbehave = None
    assert ask(prometheus) == ONE


def test_a_kept_connection_that_drips_is_cut_off_too(fake: FakePrometheus, connect: Connect) -> None:
    hung_up = threading.Event()
    prometheus = connect(fake.url, timeout=timedelta(seconds=0.2))
    assert ask(prometheus) == ONE
    fake.misbehave = drip(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n", b" ", fake, hung_up)

    assert reason(ask(prometheus)) == GapReason.TIMEOUT
    assert hung_up.wait(5)
    assert len({call.peer for call in fake.calls}) == 1


def test_the_deadline_is_for_the_whole_list(fake: FakePrometheus, connect: Connect) -> None:
    fake.misbehave = drip(b"", b"", fake, threading.Event())
    prometheus = connect(fake.url, timeout=timedelta(seconds=0.2))
    before = datetime.now(UTC)

    answers = prometheus.read([Question(f"vector({n})", None) for n in range(50)], NOW)

    assert {reason(answer) for answer in answers} == {GapReason.TIMEOUT}
    assert datetime.now(UTC) - before < timedelta(seconds=2)


def test_one_slow_answer_does_not_spoil_the_others(fake: FakePrometheus, connect: Connect) -> None:
    silence = drip(b"", b"", fake, threading.Event())
    body = vector("1")
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)

    def misbehave(connection: socket.socket) -> None:
        if any(call.params["query"] == "slow" and call.peer == connection.getpeername() for call in fake.calls):
            silence(connection)
        connection.sendall(answer)

    fake.misbehave = misbehave
    prometheus = connect(fake.url, timeout=timedelta(seconds=0.5))

    answers = prometheus.read([Question("slow", None), Question("quick", None)], NOW)

    assert reason(answers[0]) == GapReason.TIMEOUT
    assert answers[1] == ONE


def test_a_closed_port_is_unreachable(connect: Connect) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"

        assert ask(connect(url)) == Gap(GapReason.UNREACHABLE, f"{url}: Connection refused")


def test_a_name_that_does_not_resolve_is_a_gap(connect: Connect) -> None:
    # Which one depends on how fast this machine's resolver gives up.
    assert reason(ask(connect("http://prometheus.invalid"))) in {GapReason.UNREACHABLE, GapReason.TIMEOUT}


def test_a_name_that_cannot_be_one_is_unreachable(connect: Connect) -> None:
    assert reason(ask(connect("http://a..b"))) == GapReason.UNREACHABLE


def test_a_connection_closed_without_an_answer_is_unreachable(fake: FakePrometheus, connect: Connect) -> None:
    fake.misbehave = lambda connection: connection.shutdown(socket.SHUT_RDWR)

    answer = ask(connect(fake.url))

    assert reason(answer) == GapReason.UNREACHABLE
    assert "query" not in str(answer)
    assert len(fake.calls) == 1


def test_an_answer_that_breaks_off_is_no_reading(fake: FakePrometheus, connect: Connect) -> None:
    fake.reply = Reply(vector("1"), announced=100_000)

    assert reason(ask(connect(fake.url))) == GapReason.UNREACHABLE


def test_a_redirect_is_not_followed(fake: FakePrometheus, connect: Connect) -> None:
    elsewhere = FakePrometheus()
    fake.reply = Reply(b"", 302, {"Location": f"{elsewhere.url}/login?state=1234"})

    answer = ask(connect(fake.url, token=lambda: SecretStr("s3cret")))
    elsewhere.close()

    assert answer == Gap(GapReason.UNREACHABLE, f"HTTP 302 points to {elsewhere.url}/login, which is not followed")
    assert elsewhere.calls == []


# --- what is asked ---


def test_a_question_is_asked_once_with_its_time_and_the_time_left(fake: FakePrometheus, connect: Connect) -> None:
    question = Question("sum(x)", None)

    answers = connect(f"{fake.url}/prefix/").read([question, question], NOW)

    assert answers == [ONE, ONE]
    [call] = fake.calls
    assert call.path == "/prefix/api/v1/query"
    assert call.params["query"] == "sum(x)"
    assert float(call.params["time"]) == NOW.timestamp()
    assert 4 < float(call.params["timeout"]) <= 5
    assert call.headers["Accept-Encoding"] == "identity"
    assert "Authorization" not in call.headers


def test_no_question_asks_nothing(fake: FakePrometheus, connect: Connect) -> None:
    assert connect(fake.url).read([], NOW) == []
    assert fake.calls == []


def test_a_query_whose_age_cannot_be_told_is_not_sent(fake: FakePrometheus, connect: Connect) -> None:
    answers = [ask(connect(fake.url), query, timedelta(minutes=2)) for query in ("x @ 1", "sum(x", "x[5m]")]

    assert {reason(answer) for answer in answers} == {GapReason.BAD_QUERY}
    assert fake.calls == []


def test_connections_are_kept(fake: FakePrometheus, connect: Connect) -> None:
    prometheus = connect(fake.url)

    for _ in range(5):
        assert ask(prometheus) == ONE

    assert len({call.peer for call in fake.calls}) == 1


# --- secrets ---


class Rotated:
    """A secret file, read at each asking."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __call__(self) -> SecretStr:
        return SecretStr(self.path.read_text())


def test_a_rotated_token_file_is_used_by_the_next_request(
    fake: FakePrometheus, connect: Connect, tmp_path: Path
) -> None:
    file = tmp_path / "token"
    prometheus = connect(fake.url, token=Rotated(file))
    for token in ("first\n", "second\n"):
        file.write_text(token)
        ask(prometheus)
    file.unlink()
    answer = ask(prometheus)

    assert [call.headers["Authorization"] for call in fake.calls] == ["Bearer first", "Bearer second"]
    assert reason(answer) == GapReason.UNAUTHORIZED
    assert str(file) in str(answer)


def test_a_token_wins_over_netrc(
    fake: FakePrometheus, connect: Connect, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login someone password else")
    monkeypatch.setenv("NETRC", str(netrc))

    ask(connect(fake.url, token=lambda: SecretStr("mine")))
    ask(connect(fake.url))

    assert [call.headers.get("Authorization") for call in fake.calls] == ["Bearer mine", None]


def test_the_shells_proxy_is_not_used(fake: FakePrometheus, connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    proxy = FakePrometheus()
    monkeypatch.setenv("http_proxy", proxy.url)
    monkeypatch.delenv("no_proxy", raising=False)

    answer = ask(connect(fake.url, token=lambda: SecretStr("mine")))
    proxy.close()

    assert answer == ONE
    assert proxy.calls == []


def test_a_secret_that_is_not_there_yet_is_left_out(fake: FakePrometheus, connect: Connect) -> None:
    assert ask(connect(fake.url, token=lambda: None)) == ONE
    assert "Authorization" not in fake.calls[0].headers


def test_user_name_and_password(fake: FakePrometheus, connect: Connect) -> None:
    ask(connect(fake.url, username="Aladdin", password=lambda: SecretStr("open sesame")))

    assert fake.calls[0].headers["Authorization"] == "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="  # RFC 7617's own example


def test_headers_of_ones_own(fake: FakePrometheus, connect: Connect) -> None:
    ask(connect(fake.url, headers={"X-Scope-OrgID": lambda: SecretStr("edge")}))

    assert fake.calls[0].headers["X-Scope-OrgID"] == "edge"


def test_a_secret_that_fits_no_header_is_not_shown(fake: FakePrometheus, connect: Connect) -> None:
    secret = "s3cret\nX-Injected: 1"
    answers = [
        ask(connect(fake.url, token=lambda: SecretStr(secret))),
        ask(connect(fake.url, headers={"X-Key": lambda: SecretStr(secret)})),
    ]

    assert {reason(answer) for answer in answers} == {GapReason.UNAUTHORIZED}
    assert "s3cret" not in str(answers)
    assert fake.calls == []


@pytest.mark.parametrize("status", [302, 400, 401, 500])
def test_no_gap_shows_a_secret(fake: FakePrometheus, connect: Connect, status: int) -> None:
    fake.reply = Reply(b"", status, {"Location": "/elsewhere"})
    parts: dict[str, Any] = {"token": lambda: SecretStr("s3cret"), "headers": {"X-Key": lambda: SecretStr("s3cret")}}

    assert "s3cret" not in str(ask(connect(fake.url, **parts)))
    assert "s3cret" not in repr(Server(fake.url, **parts))


@pytest.mark.parametrize(
    ("parts", "complaint"),
    [
        ({"url": "prometheus:9090"}, "begins with http"),
        ({"url": "http://"}, "names a host"),
        ({"url": "http://me:s3cret@host"}, "holds no user, password"),
        ({"url": "http://host/?token=s3cret"}, "holds no user, password, query"),
        ({"url": "http://host", "token": lambda: None, "username": "me", "password": lambda: None}, "not both"),
        ({"url": "http://host", "username": "me"}, "go together"),
        ({"url": "http://host", "key": "key.pem"}, "needs its certificate"),
        ({"url": "http://host", "headers": {"X:Key": lambda: None}}, "name of a header"),
    ],
)
def test_a_server_whose_parts_do_not_fit_is_refused(parts: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint) as refusal:
        Server(**parts)

    assert "s3cret" not in str(refusal.value)


# --- TLS ---


@dataclass(frozen=True)
class Certificates:
    server: Path
    client: Path

    def key(self, certificate: Path) -> Path:
        return certificate.with_suffix(".key")


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """Two that vouch for themselves: one of the server 127.0.0.1, one of a client."""
    folder = tmp_path_factory.mktemp("tls")
    made = Certificates(folder / "server.pem", folder / "client.pem")
    for path in (made.server, made.client):
        kind = ["-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
        subject = ["-subj", f"/CN={path.stem}", "-addext", "subjectAltName=IP:127.0.0.1"]
        files = ["-keyout", str(made.key(path)), "-out", str(path)]
        subprocess.run(["openssl", "req", *kind, *subject, *files], check=True, capture_output=True)
    return made


@pytest.fixture
def secure(certificates: Certificates) -> Iterator[FakePrometheus]:
    """A server that shows its certificate and wants the client's."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates.server, certificates.key(certificates.server))
    context.load_verify_locations(certificates.client)
    context.verify_mode = ssl.CERT_REQUIRED
    context.maximum_version = ssl.TLSVersion.TLSv1_2  # refuses a client within the handshake, not after it
    server = FakePrometheus(context)
    yield server
    server.close()


def test_own_authority_and_client_certificate(
    secure: FakePrometheus, connect: Connect, certificates: Certificates
) -> None:
    client = {"cert": str(certificates.client), "key": str(certificates.key(certificates.client))}

    assert ask(connect(secure.url, ca=str(certificates.server), **client)) == ONE


def test_a_drip_over_tls_is_cut_off_too(secure: FakePrometheus, connect: Connect, certificates: Certificates) -> None:
    client = {"cert": str(certificates.client), "key": str(certificates.key(certificates.client))}
    hung_up = threading.Event()
    secure.misbehave = drip(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n", b" ", secure, hung_up)

    answer = ask(connect(secure.url, ca=str(certificates.server), timeout=timedelta(seconds=0.3), **client))

    assert reason(answer) == GapReason.TIMEOUT
    assert hung_up.wait(5)


def test_a_certificate_nobody_vouches_for_is_unreachable(
    secure: FakePrometheus, connect: Connect, certificates: Certificates
) -> None:
    answer = ask(connect(secure.url))

    assert reason(answer) == GapReason.UNREACHABLE
    assert "self-signed certificate" in str(answer)
    assert secure.calls == []


def test_a_client_without_its_certificate_is_turned_away(
    secure: FakePrometheus, connect: Connect, certificates: Certificates
) -> None:
    assert reason(ask(connect(secure.url, ca=str(certificates.server)))) == GapReason.UNREACHABLE
    assert secure.calls == []


def test_a_missing_authority_file_is_unreachable(secure: FakePrometheus, connect: Connect) -> None:
    answer = ask(connect(secure.url, ca="/nowhere/ca.pem"))

    assert reason(answer) == GapReason.UNREACHABLE
    assert "/nowhere/ca.pem" in str(answer)


# --- history ---

MINUTE = timedelta(minutes=1)


def matrix(*series: list[tuple[int, str]], **more: object) -> bytes:
    """Series by the numbers of their instants, a minute apart from NOW on."""
    rows = [
        {"metric": {"site": str(n)}, "values": [[NOW.timestamp() + 60 * tick, text] for tick, text in points]}
        for n, points in enumerate(series)
    ]
    return json.dumps({"status": "success", "data": {"resultType": "matrix", "result": rows}, **more}).encode()


def course(
    prometheus: Prometheus, ticks: int, *questions: Question, told: Callable[[int, int], None] = lambda *_: None
) -> list[Course | Gap]:
    return prometheus.read_course(questions or (Question("load", None),), NOW, MINUTE, ticks, told)


def test_history_is_asked_in_pages_no_longer_than_prometheus_gives(fake: FakePrometheus, connect: Connect) -> None:
    fake.reply = Reply(matrix())
    heard: list[tuple[int, int]] = []
    [answer] = course(connect(fake.url), 5_000, told=lambda done, pages: heard.append((done, pages)))
    assert isinstance(answer, Course)
    assert len(answer.values) == 5_000
    assert answer.gaps == {GapReason.NO_DATA: 5_000}
    assert heard == [(0, 3), (1, 3), (2, 3), (3, 3)]
    asked = [(float(call.params["start"]), float(call.params["end"])) for call in fake.calls]
    since = NOW.timestamp()
    assert [((start - since) / 60, (end - since) / 60) for start, end in asked] == [
        (0, 1_999),
        (2_000, 3_999),
        (4_000, 4_999),
    ]
    assert {(call.path, call.params["step"], call.params["query"]) for call in fake.calls} == {
        ("/api/v1/query_range", "60", "load")
    }


def test_each_instant_of_history_is_judged_as_a_reading_is(fake: FakePrometheus, connect: Connect) -> None:
    fake.reply = Reply(matrix([(0, "1"), (1, "0.1"), (2, "NaN"), (3, "+Inf"), (5, "6"), (6, "7")], [(5, "6")]))
    [answer] = course(connect(fake.url), 7)
    assert isinstance(answer, Course)
    assert [value if value == value else None for value in answer.values] == [1, 0.1, None, None, None, None, 7]
    assert answer.gaps == {
        GapReason.NOT_A_NUMBER: 1,
        GapReason.INFINITE: 1,
        GapReason.NO_DATA: 1,
        GapReason.SEVERAL_SERIES: 1,
    }


def test_history_too_old_at_its_instant_is_a_gap(fake: FakePrometheus, connect: Connect) -> None:
    sampled = f"{NOW.timestamp() - 5}"
    fake.replies["load"] = Reply(matrix([(0, "7"), (1, "8"), (2, "9"), (3, "10")]))
    fake.reply = Reply(matrix([(0, sampled), (1, sampled), (2, sampled)]))  # to max(timestamp(load))
    [answer] = course(connect(fake.url), 4, Question("load", timedelta(seconds=90)))
    assert isinstance(answer, Course)
    assert answer.gaps == {GapReason.STALE: 1, GapReason.NO_DATA: 1}
    assert list(answer.values)[:2] == [7, 8]


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        pytest.param(Reply(matrix([(0, "1")], warnings=["store 3 is away"])), GapReason.PARTIAL_ANSWER, id="partial"),
        pytest.param(Reply(vector("1")), GapReason.BAD_QUERY, id="an answer for one instant"),
        pytest.param(Reply(b"<html>"), GapReason.NOT_JSON, id="a login page"),
        pytest.param(Reply(matrix([(77, "1")])), GapReason.NOT_JSON, id="an instant nobody asked for"),
        pytest.param(Reply(matrix([(0, "one")])), GapReason.NOT_JSON, id="a value that is none"),
        pytest.param(Reply(error("bad_data", "parse error"), 400), GapReason.BAD_QUERY, id="a bad query"),
        pytest.param(Reply(error("timeout", "took too long"), 503), GapReason.TIMEOUT, id="the server's own timeout"),
        pytest.param(Reply(b"", 401), GapReason.UNAUTHORIZED, id="no access"),
    ],
)
def test_history_without_a_whole_answer_is_a_gap(
    reply: Reply, expected: GapReason, fake: FakePrometheus, connect: Connect
) -> None:
    fake.reply = reply
    [answer] = course(connect(fake.url), 3)
    assert isinstance(answer, Gap)
    assert answer.reason is expected


def test_a_question_that_failed_is_not_asked_for_its_other_pages(fake: FakePrometheus, connect: Connect) -> None:
    fake.reply = Reply(b"", 500)
    answers = course(connect(fake.url), 40_000, Question("load", None), Question("queue", None))
    assert [isinstance(answer, Gap) for answer in answers] == [True, True]
    assert len(fake.calls) == 4  # each asked once more, as history has no next evaluation


def test_history_is_as_true_by_another_clock(fake: FakePrometheus, connect: Connect) -> None:
    fake.reply = Reply(matrix([(0, "1")]), date=NOW - timedelta(hours=1))
    [answer] = course(connect(fake.url), 1)
    assert isinstance(answer, Course)


def test_history_is_asked_with_the_servers_credentials(fake: FakePrometheus, connect: Connect) -> None:
    fake.reply = Reply(matrix())
    course(connect(fake.url, token=lambda: SecretStr("open sesame")), 1)
    assert fake.calls[0].headers["Authorization"] == "Bearer open sesame"
