"""Readings and gaps from a Prometheus server; hides the client library whole.

A list of questions is asked at once and answered within one deadline, whatever the server does. A query that cannot be
answered, or whose answer no purchase may rest on, becomes a gap with a name, never an exception. Nothing is retried:
the next evaluation is the retry.
"""

import base64
import http.client
import re
import socket
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import urlsplit

import requests
import urllib3
from prometheus_api_client import PrometheusConnect
from pydantic import SecretStr
from requests.adapters import HTTPAdapter
from requests.auth import AuthBase

from autoscaler import __version__
from autoscaler.duration import format_duration
from autoscaler.model import Gap, GapReason, Question, Reading
from autoscaler.prometheus.question import Plan, plan

__all__ = ["Prometheus", "Question", "Server"]

# Windows, cooldowns and ages are told by the daemon's clock from samples stamped by Prometheus's.
_CLOCK_TOLERANCE: Final = timedelta(seconds=30)
_DATE_RESOLUTION: Final = timedelta(seconds=1)  # of an HTTP Date header

_LONGEST_DETAIL: Final = 300  # characters of a foreign message
_HEADER_NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")

Secret = Callable[[], SecretStr | None]


@dataclass(frozen=True, slots=True)
class Server:
    """One Prometheus, or whatever speaks its query API.

    Secrets are asked for before each request, since files rotate; what they raise is shown to operators, so its text
    must not hold the secret. They go to this server only: redirects are not followed.

    Raises:
        ValueError: the parts do not fit together; the message names none of their values.
    """

    url: str  # with the path prefix, if it has one
    timeout: timedelta = timedelta(seconds=5)  # for all questions of one list together
    token: Secret | None = None
    username: str | None = None
    password: Secret | None = None
    ca: str | None = None  # PEM file of the authorities that vouch for it; None: those of certifi
    cert: str | None = None  # PEM file of the client certificate
    key: str | None = None  # PEM file of its key; None: in the same file
    headers: Mapping[str, Secret] = field(default_factory=dict)

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise ValueError("the URL of a Prometheus begins with http:// or https:// and names a host")
        if parts.username is not None or parts.query or parts.fragment:
            raise ValueError("the URL of a Prometheus holds no user, password, query or fragment")
        if self.token and self.username is not None:
            raise ValueError("a Prometheus takes a token or a user name, not both")
        if (self.username is None) != (self.password is None):
            raise ValueError("the user name and the password of a Prometheus go together")
        if self.key and not self.cert:
            raise ValueError("the client key of a Prometheus needs its certificate")
        if not all(_HEADER_NAME.fullmatch(name) for name in self.headers):
            raise ValueError("the name of a header for a Prometheus holds a character that no header may")


class Prometheus:
    """Asks one server. Safe to use from several threads.

    Args:
        server: whom to ask.
        clock: the daemon's idea of now, compared with the server's.
        connections: most questions under way at once, for all callers together.
    """

    def __init__(self, server: Server, *, clock: Callable[[], datetime], connections: int = 8) -> None:
        self._timeout = server.timeout
        self._clock = clock
        self._threads = ThreadPoolExecutor(connections, thread_name_prefix="prometheus")
        self._session = requests.Session()
        self._session.trust_env = False  # else a .netrc overrides the token, and proxies are whatever the shell has
        self._session.verify = server.ca or True
        self._session.cert = (server.cert, server.key) if server.cert and server.key else server.cert
        self._session.headers.update(
            {
                "User-Agent": f"autoscaler/{__version__}",
                # On a near network compression doubles the time of a large answer.
                "Accept-Encoding": "identity",
            }
        )
        self._session.hooks["response"].append(self._inspect)
        url = server.url.rstrip("/")
        self._client = PrometheusConnect(url, session=self._session, auth=_Credentials(server))
        # After the client, which mounts an adapter of its own that retries.
        self._session.mount(url, _Adapter(pool_connections=1, pool_maxsize=connections))

    def read(self, questions: Sequence[Question], at: datetime) -> list[Reading | Gap]:
        """What each of ``questions`` comes to at the instant ``at``, in their order.

        Equal questions are asked once. Returns within the server's timeout; what has no answer by then is a gap.
        """
        ends = time.monotonic() + self._timeout.total_seconds()
        calls = {question: _Call(ends) for question in questions}
        futures = {question: self._threads.submit(self._ask, question, at, call) for question, call in calls.items()}
        wait(futures.values(), timeout=self._timeout.total_seconds())
        answers: dict[Question, Reading | Gap] = {}
        for question, future in futures.items():
            if future.done() and not future.cancelled():
                answers[question] = future.result()
            else:
                future.cancel()
                calls[question].cut()
                answers[question] = self._too_late()
        return [answers[question] for question in questions]

    def close(self) -> None:
        """Let its threads and connections go; it cannot be asked again."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._session.close()

    def _ask(self, question: Question, at: datetime, call: "_Call") -> Reading | Gap:
        asking = plan(question)
        if isinstance(asking, Gap):
            return asking
        _thread.call = call
        try:
            return self._answer(asking, at, call)
        except _NoReading as refusal:
            return refusal.gap
        except (requests.RequestException, urllib3.exceptions.HTTPError, http.client.HTTPException, OSError) as error:
            if call.remaining() <= 0 or isinstance(_cause(error), TimeoutError | urllib3.exceptions.TimeoutError):
                return self._too_late()
            return Gap(GapReason.UNREACHABLE, _shortened(_explained(error)))
        except (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError):
            return Gap(GapReason.NOT_JSON, "the answer is not one of Prometheus's")
        finally:
            call.release()

    def _answer(self, asking: Plan, at: datetime, call: "_Call") -> Reading | Gap:
        remaining = call.remaining()
        if remaining <= 0:
            return self._too_late()
        # `timeout` stops the work on the server too, of which cutting the connection may tell it late.
        params = {"time": f"{at.timestamp():.3f}", "timeout": f"{remaining:.3f}"}
        return asking.reading(self._client.custom_query(asking.query, params=params, timeout=remaining), at)

    def _inspect(self, response: requests.Response, *_: Any, **__: Any) -> None:
        """Look at an answer before the client library does, which drops all of it but the result."""
        now = self._clock()
        if gap := _refusal(response):
            raise _NoReading(gap)
        try:
            answer = response.json()
            kind, warnings = answer["data"]["resultType"], answer.get("warnings") or []
        except (AttributeError, LookupError, RecursionError, TypeError, ValueError):
            raise _NoReading(Gap(GapReason.NOT_JSON, "the answer is not JSON of Prometheus")) from None
        if gap := _clock_gap(response.headers.get("Date"), now - response.elapsed, now):
            raise _NoReading(gap)
        if warnings:
            raise _NoReading(Gap(GapReason.PARTIAL_ANSWER, _shortened("; ".join(map(str, warnings)))))
        if kind not in {"vector", "scalar"}:
            raise _NoReading(Gap(GapReason.BAD_QUERY, f"the query gives a {kind}, not a number"))

    def _too_late(self) -> Gap:
        return Gap(GapReason.TIMEOUT, f"no answer within {format_duration(self._timeout)}")


class _NoReading(Exception):
    """An answer that is a gap; carries it through the client library."""

    def __init__(self, gap: Gap) -> None:
        super().__init__(gap.reason)
        self.gap = gap


def _refusal(response: requests.Response) -> Gap | None:
    """The gap that the answer's status is, if it is one."""
    status = response.status_code
    if status == HTTPStatus.OK:
        return None
    if response.is_redirect:
        # Without its query: that is ours again, or the state of someone's login.
        elsewhere = urlsplit(response.headers["Location"])._replace(query="", fragment="").geturl()
        return Gap(GapReason.UNREACHABLE, _shortened(f"HTTP {status} points to {elsewhere}, which is not followed"))
    try:
        answer = response.json()
        said, timed_out = answer["error"], answer.get("errorType") == "timeout"
    except (AttributeError, LookupError, RecursionError, TypeError, ValueError):
        said, timed_out = response.reason or "", False
    detail = _shortened(f"HTTP {status}: {said}")
    if status in {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN}:
        return Gap(GapReason.UNAUTHORIZED, detail)
    if status == HTTPStatus.REQUEST_TIMEOUT or timed_out:
        return Gap(GapReason.TIMEOUT, detail)
    if 400 <= status < 500 and status != HTTPStatus.TOO_MANY_REQUESTS:
        return Gap(GapReason.BAD_QUERY, detail)
    return Gap(GapReason.SERVER_ERROR, detail)


def _clock_gap(date: str | None, asked_at: datetime, answered_at: datetime) -> Gap | None:
    """A gap where the server's clock was far off ours at any time between question and answer."""
    try:
        theirs = parsedate_to_datetime(date or "")
    except ValueError:
        return None
    if theirs.tzinfo is None:
        theirs = theirs.replace(tzinfo=UTC)
    ahead, behind = theirs - answered_at, asked_at - theirs - _DATE_RESOLUTION
    if max(ahead, behind) <= _CLOCK_TOLERANCE:
        return None
    off = timedelta(seconds=round(abs(theirs - answered_at).total_seconds()))
    way = "ahead of" if ahead > behind else "behind"
    return Gap(GapReason.CLOCK, f"its clock is {format_duration(off)} {way} ours")


def _cause(error: BaseException) -> BaseException:
    """The innermost reason of an error that requests and urllib3 have wrapped."""
    inner = getattr(error, "reason", None) or next((arg for arg in error.args if isinstance(arg, Exception)), None)
    inner = inner if isinstance(inner, Exception) else error.__cause__ or error.__context__
    return error if inner is None else _cause(inner)


def _explained(error: BaseException) -> str:
    # Never the wrapped error's own text: it quotes the URL, query and all.
    cause = _cause(error)
    if isinstance(cause, OSError) and not isinstance(cause, requests.RequestException):
        return (cause.strerror or str(cause)) + (f": {cause.filename}" if cause.filename else "")
    return type(cause).__name__


def _shortened(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _LONGEST_DETAIL else line[: _LONGEST_DETAIL - 1] + "…"


class _Credentials(AuthBase):
    """Puts the secrets, as they are now, into the headers of a request."""

    def __init__(self, server: Server) -> None:
        self._server = server

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        server = self._server
        for name, secret in server.headers.items():
            if (value := _now(secret, f"header {name}")) is not None:
                request.headers[name] = _fit_for_header(value, f"header {name}")
        if server.token and (token := _now(server.token, "token")) is not None:
            request.headers["Authorization"] = f"Bearer {_fit_for_header(token, 'token')}"
        if server.username is not None and server.password:
            pair = f"{server.username}:{_now(server.password, 'password') or ''}"
            request.headers["Authorization"] = f"Basic {base64.b64encode(pair.encode()).decode()}"
        return request


def _now(secret: Secret, what: str) -> str | None:
    try:
        value = secret()
    except Exception as error:  # of a kind that only wiring knows; no reading may fail otherwise than as a gap
        raise _NoReading(Gap(GapReason.UNAUTHORIZED, _shortened(f"no {what}: {error}"))) from None
    return None if value is None else value.get_secret_value().strip()


def _fit_for_header(value: str, what: str) -> str:
    # http.client would refuse it too, by an error that quotes it.
    if not (value.isascii() and value.isprintable()):
        raise _NoReading(Gap(GapReason.UNAUTHORIZED, f"the {what} holds a character that no header may"))
    return value


# --- the deadline: a server that sends a byte now and then passes every timeout of requests, which is per read ---


class _Call:
    """One request under way, which another thread can cut off when its time is up."""

    def __init__(self, ends: float) -> None:
        self._ends = ends
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self._over = False

    def remaining(self) -> float:
        """Seconds left."""
        return self._ends - time.monotonic()

    def take(self, connected: socket.socket) -> None:
        """Remember what to cut; TimeoutError where it is too late to begin."""
        with self._lock:
            if self._over:
                raise TimeoutError
            self._socket = connected

    def release(self) -> None:
        """The connection may serve another call from now on."""
        with self._lock:
            self._socket = None

    def cut(self) -> None:
        """End it: whatever its thread waits for fails now."""
        with self._lock:
            self._over = True
            if self._socket is not None:
                with suppress(OSError):
                    # Not the TLS socket's own method, which is not made for a second thread.
                    socket.socket.shutdown(self._socket, socket.SHUT_RDWR)


class _Thread(threading.local):
    """What the thread is at; the libraries between here and the socket have no place to carry it."""

    call: _Call


_thread = _Thread()


class _Connection(urllib3.connection.HTTPConnection):
    """A connection that tells the call which socket it uses, new or kept alive."""

    def connect(self) -> None:
        super().connect()
        _thread.call.take(self.sock)

    def request(self, *args: Any, **kwargs: Any) -> None:
        if self.sock is not None:
            _thread.call.take(self.sock)
        super().request(*args, **kwargs)


class _TlsConnection(_Connection, urllib3.connection.HTTPSConnection):
    """The same over TLS."""


class _Pool(urllib3.HTTPConnectionPool):
    ConnectionCls = _Connection


class _TlsPool(urllib3.HTTPSConnectionPool):
    ConnectionCls = _TlsConnection


class _Adapter(HTTPAdapter):
    """An adapter of such connections, which does not retry."""

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = {"http": _Pool, "https": _TlsPool}
