"""What is sent to the cloud: signed reads for a look or a task, and the one POST of a purchase.

Reads become values or a gap that says why there are none; nothing the server sends raises. A look is believed only
when it is whole: every page of the node list, one total throughout, each worker once.

A purchase is one POST and never more: over a connection made for it, because one that was kept may be closed by the
other side as the request arrives, which looks like an unknown outcome; without retries and without redirects. Looks
have a connection of their own, too, for all their pages: nothing is kept for so long that a server would close it.
"""

import json
import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from threading import Lock

import httpx
from pydantic import SecretStr

from autoscaler import __version__
from autoscaler.cloud.deadline import Deadline
from autoscaler.cloud.reads import (
    Get,
    Malformed,
    read_cluster,
    read_nodes,
    read_quota,
    read_scale_outs,
    read_task,
)
from autoscaler.cloud.refusals import answer, one_line, read_body, refusal_class
from autoscaler.model import Answer, Gap, GapReason, Inventory, Purchase, RefusalClass, Refused, Task, Unclear
from autoscaler.policy import WorkerSpec
from autoscaler.signing import Credential, CredentialUnavailable, canonical_query, quoted, sign

KEPT_FOR = timedelta(seconds=30)  # a look serves all policies of its cluster for this long
POLL_INTERVAL = timedelta(seconds=10)  # the API asks not to be polled faster
LONGEST_CLOCK_DIFFERENCE = timedelta(seconds=30)
LONGEST_CONNECT = timedelta(seconds=10)

# Raised before a byte of the request was sent; httpx reports a failed TLS handshake as ConnectError.
NOT_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.ProxyError)

_NEVER = datetime.min.replace(tzinfo=UTC)


class _Unread(Exception):
    """A read came to nothing; carries the gap it becomes."""

    def __init__(self, reason: GapReason, detail: str) -> None:
        super().__init__(detail)
        self.gap = Gap(reason, detail)


class _NotThere(_Unread):
    """The cloud answered 404."""


@dataclass(slots=True)
class _Memory:
    """The newest look at one cluster. Its lock makes many askers one look: they wait for it and share it."""

    lock: Lock = field(default_factory=Lock)
    result: Inventory | Gap | None = None
    ended_at: datetime = _NEVER


class Cloud:
    """The container service's API at one endpoint; safe to use from several threads.

    Args:
        endpoint: scheme, host and port, such as ``https://cs.aliyuncs.com``.
        credential: gives the credential as it is now; raises CredentialUnavailable.
        timeout: in total for a purchase's answer, and for a look with all its pages. The API asks for at least 60 s
            for a purchase.
        clock: aware UTC.
        kept_for: how old a look may be when it is given out again.
        poll_interval: from one look at a cluster to the next, at least, whoever asks.
        trust_env: whether proxies and certificate authorities are taken from the environment.
        transport: in place of the network, for tests; asked for each connection.
    """

    def __init__(
        self,
        endpoint: str,
        credential: Callable[[], Credential],
        *,
        timeout: timedelta = timedelta(seconds=60),
        clock: Callable[[], datetime],
        kept_for: timedelta = KEPT_FOR,
        poll_interval: timedelta = POLL_INTERVAL,
        trust_env: bool = False,
        transport: Callable[[], httpx.BaseTransport] | None = None,
    ) -> None:
        url = httpx.URL(endpoint)
        if url.scheme not in ("http", "https") or not url.host or url.userinfo or url.raw_path not in (b"", b"/"):
            raise ValueError("a cloud endpoint is scheme, host and port, such as https://cs.aliyuncs.com")
        self.endpoint = f"{url.scheme}://{url.netloc.decode()}"
        self._host = url.netloc.decode()
        self._credential = credential
        self._timeout = timeout
        self._clock = clock
        self._kept_for = kept_for
        self._poll_interval = poll_interval
        self._trust_env = trust_env
        self._transport = transport
        self._tls = httpx.create_ssl_context(trust_env=trust_env)  # made once: it reads the authorities' file
        self._memories: dict[str, _Memory] = {}
        self._reading: set[Deadline] = set()
        self._closed = False

    def inventory(self, cluster_id: str, *, fresh: bool = False) -> Inventory | Gap:
        """A whole and consistent look at a cluster, not older than looks are kept for.

        Args:
            cluster_id: whose.
            fresh: look again, as soon as the poll interval allows; after a gap that is done in any case.
        """
        memory = self._memories.setdefault(cluster_id, _Memory())
        with memory.lock:
            kept_for = self._poll_interval if fresh or isinstance(memory.result, Gap) else self._kept_for
            age = self._clock() - memory.ended_at
            if memory.result is None or not timedelta(0) <= age < kept_for:  # negative: the clock was set back
                memory.result = self._look(cluster_id)
                memory.ended_at = self._clock()
            return memory.result

    def task(self, task_id: str) -> Task | Gap | None:
        """A task as it is now; None: the cloud does not know it, which right after a purchase means not yet."""
        try:
            with self._connection() as get:
                return read_task(get(f"/tasks/{quoted(task_id)}", "DescribeTaskInfo", {}), task_id)
        except _NotThere:
            return None
        except _Unread as error:
            return error.gap
        except Malformed as error:
            return Gap(GapReason.INCONSISTENT, f"task {task_id}: {error}")

    def fingerprint(self) -> str:
        """What tells the credential in use from others; holds nothing secret.

        Raises:
            CredentialUnavailable: there is none now.
        """
        return self._credential().fingerprint

    def scale_out(self, purchase: Purchase, worker: WorkerSpec, password: SecretStr) -> Answer:
        """Buys: sends one request, once, and says what the answer means. Whatever the other side does, it answers.

        Args:
            purchase: as it was reserved; the request has its cluster, count, nonce and signing time.
            worker: what is bought.
            password: the login password of the workers.
        """
        try:
            credential = self._credential()
        except CredentialUnavailable as error:
            return Refused(RefusalClass.LATER, "CredentialUnavailable", str(error))
        path = f"/api/v2/clusters/{quoted(purchase.cluster_id)}"
        body = purchase_body(purchase.asked, worker, password)
        headers = sign(
            "POST",
            path,
            {},
            body,
            host=self._host,
            action="ScaleOutCluster",
            credential=credential,
            nonce=purchase.nonce,
            at=purchase.signed_at,
        )
        try:
            with self._client() as client, Deadline(self._timeout) as deadline:
                response = client.post(
                    path, content=body, headers={**headers, "connection": "close"}, extensions=deadline.extensions
                )
        except NOT_SENT as error:
            code = type(error).__name__
            return Refused(RefusalClass.LATER, code, f"the request was not sent: {_cause(error)}")
        except Exception as error:
            # Any exception: once the request may be under way, none must turn a possible purchase into a traceback.
            late = f"no whole answer within {self._timeout.total_seconds():g} s, " if deadline.passed else ""
            return Unclear(f"{late}{_cause(error)}")
        return answer(response.status_code, response.content, _hidden(credential, password))

    def close(self) -> None:
        """Ends the reads under way and refuses further ones. A purchase under way is left to finish."""
        self._closed = True
        for deadline in tuple(self._reading):
            deadline.cut()

    def _look(self, cluster_id: str) -> Inventory | Gap:
        at = self._clock()
        path = f"/clusters/{quoted(cluster_id)}"
        try:
            with self._connection() as get:
                detail = get(path, "DescribeClusterDetail", {})
                nodes = read_nodes(get, path)
                tasks = read_scale_outs(get, path, at)
                cluster = read_cluster(detail, _quota(get))
        except _Unread as error:
            return error.gap
        except Malformed as error:
            return Gap(GapReason.INCONSISTENT, f"cluster {cluster_id}: {error}")
        took = self._clock() - at
        if not -LONGEST_CLOCK_DIFFERENCE <= took <= self._timeout + LONGEST_CLOCK_DIFFERENCE:
            # The deadline is by another clock, which stands still while a machine is suspended.
            said = f"the clock went from {at:%H:%M:%SZ} to {at + took:%H:%M:%SZ} while the cluster was looked at"
            return Gap(GapReason.CLOCK, said)
        return Inventory(cluster_id, at, cluster, nodes, tasks)

    def _client(self) -> httpx.Client:
        seconds = self._timeout.total_seconds()
        return httpx.Client(
            base_url=self.endpoint,
            headers={
                "accept": "application/json",  # the cloud's default is XML
                "accept-encoding": "identity",
                "user-agent": f"autoscaler/{__version__}",
            },
            timeout=httpx.Timeout(seconds, connect=min(seconds, LONGEST_CONNECT.total_seconds())),
            follow_redirects=False,
            verify=self._tls,
            trust_env=self._trust_env,
            transport=self._transport() if self._transport is not None else None,
        )

    @contextmanager
    def _connection(self) -> Iterator[Get]:
        """Signed reads over one connection, with one deadline for all of them."""
        with self._client() as client, Deadline(self._timeout) as deadline:
            self._reading.add(deadline)
            try:
                yield lambda path, action, query: self._get(client, deadline, path, action, query)
            finally:
                self._reading.discard(deadline)

    def _get(
        self, client: httpx.Client, deadline: Deadline, path: str, action: str, query: Mapping[str, str]
    ) -> object:
        if self._closed:
            raise _Unread(GapReason.UNREACHABLE, f"{action}: closed")
        try:
            credential = self._credential()
        except CredentialUnavailable as error:
            raise _Unread(GapReason.UNAUTHORIZED, str(error)) from None
        asked_at = self._clock()
        headers = sign(
            "GET",
            path,
            query,
            None,
            host=self._host,
            action=action,
            credential=credential,
            nonce=secrets.token_hex(16),
            at=asked_at,
        )
        target = f"{path}?{canonical_query(query)}" if query else path
        try:
            response = client.get(target, headers=headers, extensions=deadline.extensions)
        except httpx.HTTPError as error:
            if deadline.passed and not self._closed:
                raise _Unread(
                    GapReason.TIMEOUT, f"{action}: not answered whole within {self._timeout.total_seconds():g} s"
                ) from None
            timed_out = isinstance(error, httpx.TimeoutException)
            raise _Unread(
                GapReason.TIMEOUT if timed_out else GapReason.UNREACHABLE, f"{action}: {_cause(error)}"
            ) from None
        self._compare_clocks(response, asked_at)
        return _parsed(action, response, _hidden(credential))

    def _compare_clocks(self, response: httpx.Response, asked_at: datetime) -> None:
        """Refuses an answer whose Date fits no moment between the question and now, within 30 s."""
        try:
            date = parsedate_to_datetime(response.headers.get("date", ""))
            cloud_at = date.astimezone(UTC) if date.tzinfo is not None else date.replace(tzinfo=UTC)
        except (ValueError, OverflowError):
            return
        difference = max(asked_at - cloud_at, cloud_at - self._clock())
        if difference > LONGEST_CLOCK_DIFFERENCE:
            seconds = difference.total_seconds()
            raise _Unread(GapReason.CLOCK, f"this clock and the cloud's differ by {seconds:.0f} s")


def purchase_body(count: int, worker: WorkerSpec, password: SecretStr) -> bytes:
    """The JSON of a purchase: the API's fields and no others, in the order of its own sample."""
    members: dict[str, object] = {
        "timeout_mins": worker.timeout_mins,
        "worker_instance_type": worker.worker_instance_type,
        "ens_region_id": worker.ens_region_id,
        "worker_image_id": worker.worker_image_id,
        "ens_internet_charge_type": worker.ens_internet_charge_type,
        "worker_period": worker.worker_period,
        "worker_auto_renew": worker.worker_auto_renew,
        "worker_auto_renew_period": worker.worker_auto_renew_period,
        "login_password": password.get_secret_value(),
        "count": count,
        "worker_system_disk_size": worker.worker_system_disk_size,
        "worker_data_disk_size": worker.worker_data_disk_size,
        "is_edge_worker": True,
    }
    if not worker.worker_auto_renew:
        del members["worker_auto_renew_period"]
    return json.dumps(members, separators=(",", ":")).encode()


def _parsed(action: str, response: httpx.Response, hide: tuple[str, ...]) -> object:
    """The JSON of an answer to a read."""
    status = response.status_code
    if not 200 <= status < 300:
        said = read_body(response.content, hide)
        detail = f"{action}: answered {status} {said}".rstrip()
        if status == 404:
            raise _NotThere(GapReason.BAD_QUERY, detail)
        refusal = refusal_class(status, said)
        if refusal is RefusalClass.ACCOUNT or (refusal is None and status in (401, 403)):
            raise _Unread(GapReason.UNAUTHORIZED, detail)
        # Being throttled, busy or sent elsewhere is the server's side; the rest of 4xx says the question is wrong.
        wrong = 400 <= status < 500 and status != 429 and refusal not in (RefusalClass.LATER, RefusalClass.BUSY)
        raise _Unread(GapReason.BAD_QUERY if wrong else GapReason.SERVER_ERROR, detail)
    try:
        parsed: object = json.loads(response.content)
    except (ValueError, RecursionError):
        raise _Unread(GapReason.NOT_JSON, f"{action}: answered {status} with a body that is not JSON") from None
    return parsed


def _quota(get: Get) -> int | None:
    # Asked for last, and not needed for a whole look: the least permission for a purchase does not cover it.
    try:
        return read_quota(get("/quota", "DescribeUserQuota", {}))
    except _Unread as error:
        if error.gap.reason is GapReason.CLOCK:
            raise
        return None


def _hidden(credential: Credential, *more: SecretStr) -> tuple[str, ...]:
    """The texts that a server may quote and nobody may see."""
    own = (credential.access_key_secret, credential.security_token, *more)
    return tuple(secret.get_secret_value() for secret in own if secret is not None)


def _cause(error: Exception) -> str:
    """An exception's kind, and its words where they cannot quote a header, as LocalProtocolError's do."""
    told = (httpx.NetworkError, httpx.TimeoutException, httpx.ProxyError, httpx.RemoteProtocolError)
    words = one_line(str(error)) if isinstance(error, told) else ""
    return f"{type(error).__name__}: {words}" if words else type(error).__name__
