"""Readings and gaps from a Prometheus server; hides the client library whole.

A list of questions is asked at once and answered within one deadline, whatever the server does. A query that cannot be
answered, or whose answer no purchase may rest on, becomes a gap with a name, never an exception. Nothing is retried:
the next evaluation is the retry.
"""

import base64
import http.client
import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from functools import partial
from http import HTTPStatus
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

import requests
import urllib3
from prometheus_api_client import PrometheusConnect
from pydantic import SecretStr
from requests.auth import AuthBase

from autoscaler import __version__
from autoscaler.duration import format_duration
from autoscaler.model import Gap, GapReason, Question, Reading
from autoscaler.prometheus.course import Course, Page, joined, pages, read_page
from autoscaler.prometheus.deadline import Call, CutAdapter, under_way
from autoscaler.prometheus.question import Plan, plan

__all__ = ["Prometheus", "Question", "Server"]

# Windows, cooldowns and ages are told by the daemon's clock from samples stamped by Prometheus's.
_CLOCK_TOLERANCE: Final = timedelta(seconds=30)
_DATE_RESOLUTION: Final = timedelta(seconds=1)  # of an HTTP Date header

_LONGEST_DETAIL: Final = 300  # characters of a foreign message
_HEADER_NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")

_NUMBERS: Final = frozenset({"vector", "scalar"})
_RANGES: Final = frozenset({"matrix"})
_PAGE_PATIENCE: Final = timedelta(minutes=1)  # for each page of history, of all questions together

Secret = Callable[[], SecretStr | None]
Told = Callable[[int, int], None]
Answer = TypeVar("Answer")


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
        self._url = url = server.url.rstrip("/")  # without secrets: see Server
        self._client = PrometheusConnect(url, session=self._session, auth=_Credentials(server))
        # After the client, which mounts an adapter of its own that retries.
        self._session.mount(url, CutAdapter(pool_connections=1, pool_maxsize=connections))

    def read(self, questions: Sequence[Question], at: datetime) -> list[Reading | Gap]:
        """What each of ``questions`` comes to at the instant ``at``, in their order.

        Equal questions are asked once. Returns within the server's timeout; what has no answer by then is a gap.
        """

        def ask(_: Question, asking: Plan, call: Call) -> Reading | Gap:
            # `timeout` stops the work on the server too, of which cutting the connection may tell it late.
            params = {"time": f"{at.timestamp():.3f}", "timeout": f"{call.remaining():.3f}"}
            return asking.reading(self._client.custom_query(asking.query, params=params, timeout=call.remaining()), at)

        answers = self._asked(questions, ask, self._timeout)
        return [answers[question] for question in questions]

    def read_course(
        self, questions: Sequence[Question], start_at: datetime, step: timedelta, ticks: int, told: Told
    ) -> list[Course | Gap]:
        """What each of ``questions`` came to at ``ticks`` instants, ``step`` apart from ``start_at`` on.

        Asked page by page, each within a minute: history takes longer than an evaluation may. A question with a page
        that has no whole answer, twice, is a gap. ``told`` hears how many pages have come, and of how many.
        """
        courses: dict[Question, list[Course]] = {question: [] for question in questions}
        failed: dict[Question, Gap] = {}
        asked = list(pages(start_at, step, ticks))
        for number, page in enumerate(asked):
            told(number, len(asked))
            ask = partial(self._page, page)
            answers = self._asked([each for each in courses if each not in failed], ask, _PAGE_PATIENCE, _RANGES)
            # Once more what failed: history has no next evaluation that would ask again.
            again = [question for question, answer in answers.items() if isinstance(answer, Gap)]
            answers |= self._asked(again, ask, _PAGE_PATIENCE, _RANGES)
            for question, answer in answers.items():
                if isinstance(answer, Gap):
                    failed[question] = answer
                else:
                    courses[question].append(answer)
        told(len(asked), len(asked))
        return [failed.get(question) or joined(courses[question]) for question in questions]

    def close(self) -> None:
        """Let its threads and connections go; it cannot be asked again."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._session.close()

    def _page(self, page: Page, question: Question, asking: Plan, call: Call) -> Course:
        bounds = {name: f"{at.timestamp():.3f}" for name, at in (("start", page.start_at), ("end", page.end_at))}
        matrices = [
            self._client.custom_query_range(
                query,
                page.start_at,
                page.end_at,
                f"{page.step.total_seconds():g}",
                params={**bounds, "timeout": f"{call.remaining():.3f}"},
                timeout=call.remaining(),
            )
            for query in (question.query, *(source.newest for source in asking.sources))
        ]
        return read_page(page, matrices[0], asking.sources, matrices[1:], asking.max_age)

    def _asked(
        self,
        questions: Iterable[Question],
        ask: Callable[[Question, Plan, Call], Answer],
        patience: timedelta,
        kinds: frozenset[str] = _NUMBERS,
    ) -> dict[Question, Answer | Gap]:
        """Each question's answer, all asked at once; what has none within ``patience`` is a gap."""
        ends = time.monotonic() + patience.total_seconds()
        calls = {question: Call(ends, kinds) for question in questions}
        too_late = Gap(GapReason.TIMEOUT, f"no answer within {format_duration(patience)}")
        futures = {
            question: self._threads.submit(self._ask, question, ask, call, too_late) for question, call in calls.items()
        }
        try:
            wait(futures.values(), timeout=patience.total_seconds())
        finally:  # also where a person does not wait any longer
            late = {question for question, future in futures.items() if not future.done() or future.cancelled()}
            for question in late:
                futures[question].cancel()
                calls[question].cut()
        return {question: too_late if question in late else future.result() for question, future in futures.items()}

    def _ask(
        self, question: Question, ask: Callable[[Question, Plan, Call], Answer], call: Call, too_late: Gap
    ) -> Answer | Gap:
        asking = plan(question)
        if isinstance(asking, Gap):
            return asking
        under_way.call = call
        try:
            return ask(question, asking, call) if call.remaining() > 0 else too_late
        except _NoReading as refusal:
            return refusal.gap
        except (requests.RequestException, urllib3.exceptions.HTTPError, http.client.HTTPException, OSError) as error:
            if call.remaining() <= 0 or isinstance(_cause(error), TimeoutError | urllib3.exceptions.TimeoutError):
                return too_late
            return Gap(GapReason.UNREACHABLE, _shortened(f"{self._url}: {_explained(error)}"))
        except (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError):
            return Gap(GapReason.NOT_JSON, "the answer is not one of Prometheus's")
        finally:
            call.release()

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
        history = under_way.call.kinds is _RANGES  # which is as true by another clock
        if not history and (gap := _clock_gap(response.headers.get("Date"), now - response.elapsed, now)):
            raise _NoReading(gap)
        if warnings:
            raise _NoReading(Gap(GapReason.PARTIAL_ANSWER, _shortened("; ".join(map(str, warnings)))))
        if kind not in under_way.call.kinds:
            raise _NoReading(Gap(GapReason.BAD_QUERY, f"the query gives a {kind}, not a number"))


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
