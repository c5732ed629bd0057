"""Looks, tasks and purchases against a cloud that answers in memory; what crosses a wire is in test_cloud_wire."""

import json
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import SecretStr

from autoscaler.cloud import Cloud, ImaginedCloud
from autoscaler.cloud.client import purchase_body
from autoscaler.model import (
    Accepted,
    Cluster,
    Gap,
    GapReason,
    Inventory,
    Node,
    RefusalClass,
    Refused,
    Task,
    TaskState,
    Unclear,
)
from autoscaler.signing import Credential, CredentialUnavailable
from tests import build

NOW = datetime(2026, 6, 1, 10, 0, tzinfo=UTC)
CREDENTIAL = Credential("LTAI-id", SecretStr("the-key-secret"), SecretStr("the-token"))
CLUSTER = "c1"
WORKER = build.policy().worker
PASSWORD = SecretStr("Edge-pass-1")
PURCHASE = build.purchase(cluster_id=CLUSTER, state="sending")
VECTORS = Path(__file__).parent / "data" / "signature_vectors.json"


class Clock:
    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> datetime:
        return self.now

    def advance(self, **by: float) -> None:
        self.now += timedelta(**by)


class FakeCloud:
    """Answers by path; ``calls`` has every request, ``next_error`` is raised instead of the next answer."""

    def __init__(self) -> None:
        self.calls: list[httpx.Request] = []
        self.next_error: Exception | None = None
        self.connections = 0
        self.nodes: list[Any] = []
        self.tasks: list[Any] = []
        self.page_info = True
        self.cluster: Any = {"state": "running", "profile": "Edge", "size": 3}
        self.quota: Any = {"node_quota": 100}
        self.largest_page = 100
        self.answers: dict[str, httpx.Response | Callable[[httpx.Request], httpx.Response]] = {}

    def __call__(self) -> httpx.BaseTransport:
        self.connections += 1
        return httpx.MockTransport(self.handle)

    def paths(self) -> list[str]:
        return [request.url.path for request in self.calls]

    def handle(self, request: httpx.Request) -> httpx.Response:
        self.calls.append(request)
        if self.next_error is not None:
            error, self.next_error = self.next_error, None
            raise error
        answer = self.answers.get(request.url.path)
        if answer is not None:
            return answer(request) if callable(answer) else answer
        query = request.url.params
        match request.url.path.split("/")[1:]:
            case ["clusters", _]:
                return httpx.Response(200, json=self.cluster)
            case ["clusters", _, "nodes"]:
                size = min(int(query["pageSize"]), self.largest_page)
                start = (int(query["pageNumber"]) - 1) * size
                page = {"nodes": self.nodes[start : start + size], "page": {"total_count": len(self.nodes)}}
                return httpx.Response(200, json=page)
            case ["clusters", _, "tasks"]:
                size = int(query["page_size"])
                start = (int(query["page_number"]) - 1) * size
                told = {"tasks": self.tasks[start : start + size]}
                info = {"page_info": {"total_count": len(self.tasks)}} if self.page_info else {}
                return httpx.Response(200, json=told | info)
            case ["quota"]:
                return httpx.Response(200, json=self.quota)
        return httpx.Response(404, json={"code": "InvalidApi.NotFound"})


@pytest.fixture
def fake() -> FakeCloud:
    return FakeCloud()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def cloud(fake: FakeCloud, clock: Clock) -> Cloud:
    return Cloud("https://cs.test", lambda: CREDENTIAL, clock=clock, transport=fake)


def node(n: int, **changes: Any) -> dict[str, Any]:
    return {
        "instance_id": f"i-{n}",
        "state": "running",
        "node_status": "Ready",
        "creation_time": "2026-06-01T17:00:00+08:00",
        "expired_time": "2026-07-01T17:00:00+08:00",
        "instance_type": "ens.sn1.tiny",
        "instance_role": "Worker",
        "error_message": "",
        **changes,
    }


def task(n: int, **changes: Any) -> dict[str, Any]:
    created = (NOW - timedelta(hours=n)).isoformat()
    return {"task_id": f"T-{n}", "task_type": "cluster_scaleout", "state": "success", "created": created, **changes}


def look(cloud: Cloud, *, fresh: bool = False) -> Inventory:
    seen = cloud.inventory(CLUSTER, fresh=fresh)
    assert isinstance(seen, Inventory), seen
    return seen


def gap(cloud: Cloud) -> Gap:
    seen = cloud.inventory(CLUSTER)
    assert isinstance(seen, Gap), seen
    return seen


# --- a look ---


def test_a_look_has_the_cluster_its_nodes_its_scale_outs_and_the_quota(cloud: Cloud, fake: FakeCloud) -> None:
    fake.nodes = [node(1)]
    fake.tasks = [task(1), task(2, task_type="cluster_upgrade")]
    assert look(cloud) == Inventory(
        cluster_id=CLUSTER,
        at=NOW,
        cluster=Cluster("running", "Edge", 3, 100),
        nodes=(
            Node(
                "i-1",
                "ens.sn1.tiny",
                "Worker",
                True,
                "running",
                datetime(2026, 6, 1, 9, tzinfo=UTC),
                datetime(2026, 7, 1, 9, tzinfo=UTC),
            ),
        ),
        tasks=(Task("T-1", TaskState.SUCCESS, NOW - timedelta(hours=1)),),
    )


@pytest.mark.parametrize(("total", "pages"), [(0, 1), (1, 1), (100, 1), (101, 2), (250, 3)])
def test_every_page_of_the_node_list_is_read(cloud: Cloud, fake: FakeCloud, total: int, pages: int) -> None:
    fake.nodes = [node(n) for n in range(total)]
    assert [n.instance_id for n in look(cloud).nodes] == [f"i-{n}" for n in range(total)]
    assert fake.paths().count("/clusters/c1/nodes") == pages


def test_a_cloud_with_smaller_pages_than_asked_for_is_read_whole(cloud: Cloud, fake: FakeCloud) -> None:
    fake.nodes, fake.largest_page = [node(n) for n in range(25)], 10
    assert len(look(cloud).nodes) == 25


def test_one_look_uses_one_connection(cloud: Cloud, fake: FakeCloud) -> None:
    fake.nodes = [node(n) for n in range(250)]
    look(cloud)
    assert fake.connections == 1


def pages(*answers: dict[str, Any]) -> Callable[[httpx.Request], httpx.Response]:
    rest = list(answers)
    return lambda request: httpx.Response(200, json=rest.pop(0))


def paged(nodes: list[Any], total: Any) -> dict[str, Any]:
    return {"nodes": nodes, "page": {"total_count": total}}


@pytest.mark.parametrize(
    ("answers", "says"),
    [
        pytest.param([paged([], 20)], "holds 0 of the 20", id="an empty page with a total of 20"),
        pytest.param([paged([node(1)], 2), paged([], 2)], "holds 1 of the 2", id="the last page is empty"),
        pytest.param([paged([node(1), node(2)], 1)], "holds 2 of the 1", id="more nodes than the total"),
        pytest.param([paged([node(1)], 3), paged([node(2)], 2)], "from 3 to 2", id="the total changes between pages"),
        pytest.param([paged([node(1)], 2), paged([node(1)], 2)], "i-1 twice", id="a node on two pages"),
        pytest.param([paged([node(1), node(1)], 2)], "i-1 twice", id="a node twice on a page"),
        pytest.param([{"nodes": [node(1)]}], "page is None", id="no total"),
        pytest.param([paged([], "0")], "total_count is '0'", id="a total that is text"),
        pytest.param([paged([], True)], "total_count is True", id="a total that is a truth value"),
        pytest.param([paged([], -1)], "total_count is -1", id="a negative total"),
        pytest.param([{"page": {"total_count": 0}}], "nodes is missing", id="no list"),
        pytest.param([{"nodes": {}, "page": {"total_count": 0}}], "not a list", id="a list that is none"),
        pytest.param([paged(["i-1"], 1)], "a node is 'i-1'", id="a node that is text"),
        pytest.param([paged([node(1, instance_role="")], 1)], "instance_role", id="a node without a role"),
        pytest.param([paged([node(1, instance_type=None)], 1)], "instance_type", id="a node without a type"),
        pytest.param([paged([node(1, instance_id="")], 1)], "instance_id", id="a ready node without an id"),
    ],
)
def test_a_node_list_that_does_not_add_up_is_a_gap(
    cloud: Cloud, fake: FakeCloud, answers: list[dict[str, Any]], says: str
) -> None:
    fake.answers["/clusters/c1/nodes"] = pages(*answers)
    seen = gap(cloud)
    assert seen.reason is GapReason.INCONSISTENT
    assert says in seen.detail


def test_an_empty_list_may_be_null(cloud: Cloud, fake: FakeCloud) -> None:
    fake.answers["/clusters/c1/nodes"] = httpx.Response(200, json={"nodes": None, "page": {"total_count": 0}})
    fake.answers["/clusters/c1/tasks"] = httpx.Response(200, json={"tasks": None})
    assert (look(cloud).nodes, look(cloud).tasks) == ((), ())


def test_a_machine_on_its_way_without_an_id_is_left_out(cloud: Cloud, fake: FakeCloud) -> None:
    fake.nodes = [node(1), node(2, instance_id="", node_status="NotReady")]
    assert [n.instance_id for n in look(cloud).nodes] == ["i-1"]


@pytest.mark.parametrize(
    ("status", "ready"),
    [
        ("Ready", True),
        ("Ready,SchedulingDisabled", True),
        ("NotReady", False),
        ("NotReady,Ready", False),
        ("Unknown", False),
        ("", False),
        (None, False),
        (1, False),
    ],
)
def test_ready_is_what_the_first_part_of_node_status_says(
    cloud: Cloud, fake: FakeCloud, status: Any, ready: bool
) -> None:
    fake.nodes = [node(1, node_status=status)]
    assert look(cloud).nodes[0].ready is ready


@pytest.mark.parametrize(
    ("text", "at"),
    [
        ("2026-06-01T18:00:00+08:00", NOW),
        ("2026-06-01T10:00:00Z", NOW),
        ("2026-06-01T10:00:00", None),
        ("0001-01-01T00:00:00Z", None),
        ("9999-12-31T23:59:59-08:00", None),
        ("soon", None),
        ("", None),
        (None, None),
        (1780308000, None),
    ],
)
def test_times_are_utc_or_unknown(cloud: Cloud, fake: FakeCloud, text: Any, at: datetime | None) -> None:
    fake.nodes = [node(1, creation_time=text, expired_time=text)]
    seen = look(cloud).nodes[0]
    assert (seen.created_at, seen.expires_at) == (at, at)


def test_a_role_is_read_in_any_case(cloud: Cloud, fake: FakeCloud) -> None:
    fake.nodes = [node(1, instance_role="WORKER"), node(2, instance_role="master")]
    assert [n.role for n in look(cloud).nodes] == ["Worker", "Master"]


@pytest.mark.parametrize("missing", ["state", "size"])
def test_a_cluster_without_state_or_size_is_a_gap(cloud: Cloud, fake: FakeCloud, missing: str) -> None:
    del fake.cluster[missing]
    assert gap(cloud).reason is GapReason.INCONSISTENT


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(httpx.Response(403, json={"code": "Forbidden.RAM"}), id="no permission to ask"),
        pytest.param(httpx.Response(503), id="down"),
        pytest.param(httpx.Response(200, json={}), id="not told"),
        pytest.param(httpx.Response(200, json=[]), id="not an object"),
        pytest.param(httpx.Response(200, text="x"), id="not JSON"),
    ],
)
def test_a_look_is_whole_without_a_quota(cloud: Cloud, fake: FakeCloud, answer: httpx.Response) -> None:
    fake.answers["/quota"] = answer
    assert look(cloud).cluster.node_quota is None


def test_a_profile_that_is_missing_is_no_edge_cluster(cloud: Cloud, fake: FakeCloud) -> None:
    del fake.cluster["profile"]
    assert look(cloud).cluster.profile == ""


# --- its scale-out tasks ---


def test_tasks_are_read_until_the_newest_first_list_is_a_day_back(cloud: Cloud, fake: FakeCloud) -> None:
    fake.tasks = [task(n) for n in range(200)]
    assert len(look(cloud).tasks) == 50
    assert fake.paths().count("/clusters/c1/tasks") == 1


def test_a_list_with_the_oldest_first_is_read_to_its_end(cloud: Cloud, fake: FakeCloud) -> None:
    fake.tasks = [task(n) for n in reversed(range(120))]
    assert "T-0" in {t.task_id for t in look(cloud).tasks}


def test_a_list_without_a_total_ends_where_a_page_has_nothing_new(cloud: Cloud, fake: FakeCloud) -> None:
    fake.tasks, fake.page_info = [task(n % 3, task_id=f"T-{n}") for n in range(60)], False
    assert len(look(cloud).tasks) == 60


def test_a_server_that_repeats_one_page_for_ever_is_left(cloud: Cloud, fake: FakeCloud) -> None:
    fake.answers["/clusters/c1/tasks"] = lambda request: httpx.Response(200, json={"tasks": [task(1)]})
    assert len(look(cloud).tasks) == 1


@pytest.mark.parametrize(
    "entry",
    [
        pytest.param("T-1", id="text"),
        pytest.param({"task_type": "cluster_scaleout", "state": "running"}, id="without an id"),
        pytest.param({"task_id": "T-1", "task_type": "cluster_scaleout"}, id="without a state"),
        pytest.param({"task_id": "T-1", "state": "running"}, id="without a type: it may be a scale-out"),
    ],
)
def test_a_task_list_that_cannot_be_read_is_a_gap(cloud: Cloud, fake: FakeCloud, entry: Any) -> None:
    fake.tasks = [entry]
    assert gap(cloud).reason is GapReason.INCONSISTENT


# --- reads that fail ---


@pytest.mark.parametrize(
    ("answer", "reason", "says"),
    [
        pytest.param(
            httpx.Response(403, json={"Code": "Forbidden.RAM", "Message": "not allowed", "RequestId": "R-9"}),
            GapReason.UNAUTHORIZED,
            "answered 403 Forbidden.RAM not allowed (request R-9)",
            id="forbidden",
        ),
        pytest.param(
            httpx.Response(400, json={"code": "SignatureDoesNotMatch"}),
            GapReason.UNAUTHORIZED,
            "SignatureDoesNotMatch",
            id="an account's code with another status",
        ),
        pytest.param(httpx.Response(401), GapReason.UNAUTHORIZED, "answered 401", id="401 without a word"),
        pytest.param(
            httpx.Response(404, json={"code": "ErrorClusterNotFound", "message": "no c1"}),
            GapReason.BAD_QUERY,
            "ErrorClusterNotFound no c1",
            id="no such cluster",
        ),
        pytest.param(
            httpx.Response(400, json={"code": "InvalidParameter"}), GapReason.BAD_QUERY, "InvalidParameter", id="400"
        ),
        pytest.param(
            httpx.Response(403, json={"code": "Throttling.User"}), GapReason.SERVER_ERROR, "Throttling", id="throttled"
        ),
        pytest.param(httpx.Response(429), GapReason.SERVER_ERROR, "429", id="429"),
        pytest.param(httpx.Response(500), GapReason.SERVER_ERROR, "500", id="500"),
        pytest.param(httpx.Response(502, text="<html>x</html>"), GapReason.SERVER_ERROR, "502", id="a proxy's page"),
        pytest.param(
            httpx.Response(302, headers={"location": "https://elsewhere.test/"}),
            GapReason.SERVER_ERROR,
            "302",
            id="a redirect is not followed",
        ),
        pytest.param(httpx.Response(200, text="<html>"), GapReason.NOT_JSON, "not JSON", id="a page"),
        pytest.param(httpx.Response(200, text=""), GapReason.NOT_JSON, "not JSON", id="nothing"),
        pytest.param(httpx.Response(200, text="[" * 100_000), GapReason.NOT_JSON, "not JSON", id="too deep"),
        pytest.param(httpx.Response(200, json=[]), GapReason.INCONSISTENT, "not an object", id="a list"),
        pytest.param(httpx.Response(200, text="null"), GapReason.INCONSISTENT, "not an object", id="null"),
    ],
)
@pytest.mark.parametrize("path", ["/clusters/c1", "/clusters/c1/nodes", "/clusters/c1/tasks"])
def test_a_read_that_fails_makes_the_look_a_gap_by_name(
    cloud: Cloud, fake: FakeCloud, path: str, answer: httpx.Response, reason: GapReason, says: str
) -> None:
    fake.answers[path] = answer
    seen = gap(cloud)
    assert seen.reason is reason
    assert says in seen.detail


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (httpx.ConnectError("[Errno 111] Connection refused"), GapReason.UNREACHABLE),
        (httpx.ConnectTimeout("timed out"), GapReason.TIMEOUT),
        (httpx.ReadTimeout("timed out"), GapReason.TIMEOUT),
        (httpx.ReadError("reset"), GapReason.UNREACHABLE),
        (httpx.RemoteProtocolError("cut"), GapReason.UNREACHABLE),
        (httpx.ProxyError("no"), GapReason.UNREACHABLE),
        (httpx.DecodingError("no"), GapReason.UNREACHABLE),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else str(value),
)
def test_a_connection_that_fails_is_a_gap_and_is_not_tried_again(
    cloud: Cloud, fake: FakeCloud, error: Exception, reason: GapReason
) -> None:
    fake.next_error = error
    assert gap(cloud).reason is reason
    assert len(fake.calls) == 1


@pytest.mark.parametrize(
    ("off", "reason"), [(-32, GapReason.CLOCK), (-28, None), (0, None), (28, None), (32, GapReason.CLOCK)]
)
def test_clocks_more_than_30_s_apart_are_a_gap(
    cloud: Cloud, fake: FakeCloud, off: int, reason: GapReason | None
) -> None:
    date = (NOW + timedelta(seconds=off)).strftime("%a, %d %b %Y %H:%M:%S GMT")
    fake.answers["/clusters/c1"] = httpx.Response(200, json=fake.cluster, headers={"date": date})
    seen = cloud.inventory(CLUSTER)
    assert (seen.reason if isinstance(seen, Gap) else None) is reason


def test_a_clock_that_is_off_is_told_before_what_the_cloud_makes_of_it(cloud: Cloud, fake: FakeCloud) -> None:
    fake.answers["/clusters/c1"] = httpx.Response(
        400, json={"code": "InvalidTimeStamp.Expired"}, headers={"date": "Mon, 01 Jun 2026 12:00:00 GMT"}
    )
    assert gap(cloud) == Gap(GapReason.CLOCK, "this clock and the cloud's differ by 7200 s")


def test_the_time_a_request_takes_is_no_difference_of_clocks(cloud: Cloud, fake: FakeCloud, clock: Clock) -> None:
    def slow(request: httpx.Request) -> httpx.Response:
        clock.advance(seconds=50)
        return httpx.Response(200, json=fake.cluster, headers={"date": "Mon, 01 Jun 2026 10:00:00 GMT"})

    fake.answers["/clusters/c1"] = slow
    look(cloud)


@pytest.mark.parametrize("date", ["", "yesterday", "Fri, 31 Dec 9999 23:59:59 -2300"])
def test_a_date_that_cannot_be_read_says_nothing(cloud: Cloud, fake: FakeCloud, date: str) -> None:
    fake.answers["/clusters/c1"] = httpx.Response(200, json=fake.cluster, headers={"date": date})
    look(cloud)


def test_no_gap_repeats_a_secret_that_the_server_quotes(cloud: Cloud, fake: FakeCloud) -> None:
    fake.answers["/clusters/c1"] = httpx.Response(400, json={"code": "X", "message": "the-key-secret the-token"})
    assert gap(cloud).detail.endswith("answered 400 X *** ***")


def test_without_a_credential_nothing_is_sent(fake: FakeCloud, clock: Clock) -> None:
    def unavailable() -> Credential:
        raise CredentialUnavailable("no credential: file /run/key is missing")

    cloud = Cloud("https://cs.test", unavailable, clock=clock, transport=fake)
    assert gap(cloud) == Gap(GapReason.UNAUTHORIZED, "no credential: file /run/key is missing")
    answer = cloud.scale_out(PURCHASE, WORKER, PASSWORD)
    assert isinstance(answer, Refused)
    assert (answer.refusal, answer.code) == (RefusalClass.LATER, "CredentialUnavailable")
    assert fake.calls == []


def test_a_closed_cloud_reads_no_more(cloud: Cloud, fake: FakeCloud) -> None:
    cloud.close()
    assert gap(cloud).reason is GapReason.UNREACHABLE
    assert fake.calls == []


# --- how often ---


def looks(fake: FakeCloud) -> int:
    return fake.paths().count("/clusters/c1")


def test_a_look_serves_for_30_s(cloud: Cloud, fake: FakeCloud, clock: Clock) -> None:
    first = look(cloud)
    clock.advance(seconds=29)
    assert look(cloud) is first
    clock.advance(seconds=1)
    assert look(cloud).at == clock.now
    assert looks(fake) == 2


def test_a_fresh_look_is_taken_at_most_every_10_s(cloud: Cloud, fake: FakeCloud, clock: Clock) -> None:
    look(cloud)
    clock.advance(seconds=9)
    look(cloud, fresh=True)
    assert looks(fake) == 1
    clock.advance(seconds=1)
    look(cloud, fresh=True)
    assert looks(fake) == 2


def test_a_gap_is_kept_for_10_s_only(cloud: Cloud, fake: FakeCloud, clock: Clock) -> None:
    fake.next_error = httpx.ReadError("reset")
    gap(cloud)
    clock.advance(seconds=9)
    gap(cloud)
    assert looks(fake) == 1
    clock.advance(seconds=1)
    look(cloud)


def test_a_clock_set_back_does_not_keep_a_look_for_ever(cloud: Cloud, fake: FakeCloud, clock: Clock) -> None:
    look(cloud)
    clock.advance(hours=-2)
    look(cloud)
    assert looks(fake) == 2


@pytest.mark.parametrize(
    ("jump", "told"),
    [
        pytest.param({"hours": 2}, "10:00:00Z to 12:00:00Z", id="the machine was suspended, or the clock set forward"),
        pytest.param({"hours": -1}, "10:00:00Z to 09:00:00Z", id="the clock was set back"),
    ],
)
def test_a_look_over_which_the_clock_jumped_is_a_gap(
    cloud: Cloud, fake: FakeCloud, clock: Clock, jump: dict[str, int], told: str
) -> None:
    def meanwhile(request: httpx.Request) -> httpx.Response:
        clock.advance(**jump)
        return httpx.Response(200, json=fake.quota)

    fake.answers["/quota"] = meanwhile
    assert gap(cloud) == Gap(GapReason.CLOCK, f"the clock went from {told} while the cluster was looked at")


def test_the_pace_of_looks_may_be_set(fake: FakeCloud, clock: Clock) -> None:
    kept_for, interval = timedelta(seconds=3), timedelta(seconds=1)
    cloud = Cloud(
        "https://cs.test", lambda: CREDENTIAL, clock=clock, kept_for=kept_for, poll_interval=interval, transport=fake
    )
    look(cloud)
    clock.advance(seconds=1)
    look(cloud)
    assert looks(fake) == 1
    look(cloud, fresh=True)
    clock.advance(seconds=3)
    look(cloud)
    assert looks(fake) == 3


def test_clusters_are_kept_apart(cloud: Cloud, fake: FakeCloud) -> None:
    look(cloud)
    cloud.inventory("c2")
    assert "/clusters/c2/nodes" in fake.paths()


def test_many_threads_share_one_look(cloud: Cloud, fake: FakeCloud) -> None:
    entered, go_on = threading.Event(), threading.Event()

    def wait(request: httpx.Request) -> httpx.Response:
        entered.set()
        go_on.wait(5)
        return httpx.Response(200, json=fake.cluster)

    fake.answers["/clusters/c1"] = wait
    seen: list[Inventory | Gap] = []
    threads = [threading.Thread(target=lambda: seen.append(cloud.inventory(CLUSTER))) for _ in range(8)]
    for thread in threads:
        thread.start()
    assert entered.wait(5)
    go_on.set()
    for thread in threads:
        thread.join(5)
    assert len({id(inventory) for inventory in seen}) == 1
    assert (len(seen), looks(fake)) == (8, 1)


# --- signed requests ---


def test_every_read_is_signed_with_a_nonce_of_its_own_and_the_credential_of_the_moment(
    fake: FakeCloud, clock: Clock
) -> None:
    ids = iter(f"id-{n}" for n in range(100))
    cloud = Cloud("https://cs.test", lambda: Credential(next(ids), SecretStr("s")), clock=clock, transport=fake)
    look(cloud)
    assert {request.headers["x-acs-action"] for request in fake.calls} == {
        "DescribeClusterDetail",
        "DescribeClusterNodes",
        "DescribeClusterTasks",
        "DescribeUserQuota",
    }
    assert len({request.headers["x-acs-signature-nonce"] for request in fake.calls}) == len(fake.calls)
    assert [f"Credential=id-{n}," in r.headers["authorization"] for n, r in enumerate(fake.calls)] == [True] * 4
    assert all(request.headers["x-acs-date"] == "2026-06-01T10:00:00Z" for request in fake.calls)


@pytest.mark.parametrize(
    "endpoint",
    [
        "cs.aliyuncs.com",
        "ftp://cs.aliyuncs.com",
        "https://",
        "https://u:p@cs.test",
        "https://cs.test/prefix",
        "https://cs.test?x=1",
    ],
)
def test_an_endpoint_is_scheme_host_and_port(endpoint: str) -> None:
    with pytest.raises(ValueError, match="scheme, host and port"):
        Cloud(endpoint, lambda: CREDENTIAL, clock=Clock())


@pytest.mark.parametrize(
    ("given", "endpoint"),
    [
        ("https://cs.test/", "https://cs.test"),
        ("https://cs.test:443", "https://cs.test"),
        ("http://127.0.0.1:8000", "http://127.0.0.1:8000"),
    ],
)
def test_an_endpoint_has_one_form(given: str, endpoint: str) -> None:
    assert Cloud(given, lambda: CREDENTIAL, clock=Clock()).endpoint == endpoint


def test_the_fingerprint_is_that_of_the_credential_in_use(cloud: Cloud) -> None:
    assert cloud.fingerprint() == CREDENTIAL.fingerprint


# --- a task ---


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        ("running", TaskState.RUNNING),
        ("initial", TaskState.RUNNING),
        ("paused", TaskState.RUNNING),
        ("a new word", TaskState.RUNNING),
        ("success", TaskState.SUCCESS),
        ("Success", TaskState.SUCCESS),
        ("fail", TaskState.FAILED),
        ("failed", TaskState.FAILED),
        ("canceled", TaskState.FAILED),
        ("cancelled", TaskState.FAILED),
    ],
)
def test_a_tasks_state(cloud: Cloud, fake: FakeCloud, state: str, expected: TaskState) -> None:
    fake.answers["/tasks/T-1"] = httpx.Response(200, json={"task_id": "T-1", "state": state})
    assert cloud.task("T-1") == Task("T-1", expected, None)


def test_a_task_tells_what_came_what_did_not_and_why(cloud: Cloud, fake: FakeCloud) -> None:
    fake.answers["/tasks/T-1"] = httpx.Response(
        200,
        json={
            "task_id": "T-1",
            "state": "fail",
            "created": "2026-06-01T17:00:00+08:00",
            "task_result": [
                {"data": "i-1", "status": "success"},
                {"data": "i-2", "status": "failed"},
                {"data": "i-3", "status": "initial"},
                {"data": "i-2", "status": "fail"},
                {"data": "i-1", "status": "failed"},
                {"data": "", "status": "failed"},
                {"data": 7, "status": "success"},
                "i-4",
            ],
            "error": {"code": "InventoryExceeded", "message": "none left"},
        },
    )
    assert cloud.task("T-1") == Task(
        "T-1",
        TaskState.FAILED,
        datetime(2026, 6, 1, 9, tzinfo=UTC),
        succeeded=("i-1",),
        failed=("i-2",),
        pending=("i-3",),
        error="InventoryExceeded: none left",
    )


@pytest.mark.parametrize("error", [None, {}, {"code": "", "message": ""}, "x", {"code": 7}])
def test_a_task_without_an_error_has_none(cloud: Cloud, fake: FakeCloud, error: Any) -> None:
    fake.answers["/tasks/T-1"] = httpx.Response(200, json={"state": "running", "error": error, "task_result": None})
    assert cloud.task("T-1") == Task("T-1", TaskState.RUNNING, None)


@pytest.mark.parametrize("answer", [httpx.Response(404), httpx.Response(404, json={"code": "TaskNotFound"})])
def test_a_task_that_is_404_is_not_there_yet(cloud: Cloud, fake: FakeCloud, answer: httpx.Response) -> None:
    fake.answers["/tasks/T-1"] = answer
    assert cloud.task("T-1") is None


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (httpx.Response(500), GapReason.SERVER_ERROR),
        (httpx.Response(200, json={"task_id": "T-2", "state": "success"}), GapReason.INCONSISTENT),
        (httpx.Response(200, json={"task_id": "T-1"}), GapReason.INCONSISTENT),
        (httpx.Response(200, json=[]), GapReason.INCONSISTENT),
        (httpx.Response(200, text="ok"), GapReason.NOT_JSON),
    ],
)
def test_a_task_that_cannot_be_read_is_a_gap(
    cloud: Cloud, fake: FakeCloud, answer: httpx.Response, reason: GapReason
) -> None:
    fake.answers["/tasks/T-1"] = answer
    seen = cloud.task("T-1")
    assert isinstance(seen, Gap)
    assert seen.reason is reason


def test_a_task_id_is_one_segment_of_the_path_and_signed_as_it_is_sent(cloud: Cloud, fake: FakeCloud) -> None:
    cloud.task("T/1 ?x=1")
    assert fake.calls[0].url.raw_path == b"/tasks/T%2F1%20%3Fx%3D1"


# --- a purchase ---


def test_the_body_is_the_one_the_official_library_sends() -> None:
    vector = json.loads(VECTORS.read_text())["vectors"]["acs3_scaleout"]
    assert purchase_body(1, WORKER, SecretStr("Hello1234!")).decode() == vector["body"]


def test_the_renewal_period_goes_only_with_renewal() -> None:
    worker = WORKER.model_copy(update={"worker_auto_renew": False})
    members = json.loads(purchase_body(2, worker, PASSWORD))
    assert "worker_auto_renew_period" not in members
    assert (members["worker_auto_renew"], members["count"], members["is_edge_worker"]) == (False, 2, True)


def test_a_purchase_is_sent_as_it_was_reserved(cloud: Cloud, fake: FakeCloud, clock: Clock) -> None:
    fake.answers["/api/v2/clusters/c1"] = httpx.Response(202, json={"task_id": "T-1", "request_id": "R-1"})
    reserved = build.purchase(
        cluster_id=CLUSTER, state="sending", nonce="nonce-of-the-row", signed_at=NOW - timedelta(seconds=20), asked=3
    )
    assert cloud.scale_out(reserved, WORKER, PASSWORD) == Accepted("T-1", "R-1")
    (request,) = fake.calls
    assert request.method == "POST"
    assert request.headers["x-acs-signature-nonce"] == "nonce-of-the-row"
    assert request.headers["x-acs-date"] == "2026-06-01T09:59:40Z"
    assert request.headers["x-acs-action"] == "ScaleOutCluster"
    assert request.headers["connection"] == "close"
    assert json.loads(request.content)["count"] == 3


@pytest.mark.parametrize(
    "error",
    [
        httpx.ConnectError("[Errno 111] Connection refused"),
        httpx.ConnectTimeout("timed out"),
        httpx.PoolTimeout("timed out"),
        httpx.ProxyError("407 Proxy Authentication Required"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_connection_that_was_never_made_bought_nothing(cloud: Cloud, fake: FakeCloud, error: Exception) -> None:
    fake.next_error = error
    answer = cloud.scale_out(PURCHASE, WORKER, PASSWORD)
    assert isinstance(answer, Refused)
    assert (answer.refusal, answer.code) == (RefusalClass.LATER, type(error).__name__)
    assert len(fake.calls) == 1


@pytest.mark.parametrize(
    "error",
    [
        httpx.ReadTimeout("timed out"),
        httpx.WriteTimeout("timed out"),
        httpx.ReadError("reset"),
        httpx.WriteError("broken pipe"),
        httpx.CloseError("x"),
        httpx.RemoteProtocolError("disconnected"),
        httpx.LocalProtocolError("Illegal header value b'the-token'"),
        httpx.DecodingError("x"),
        httpx.TooManyRedirects("x"),
        httpx.UnsupportedProtocol("x"),
        httpx.InvalidURL("x"),
        OSError("x"),
        RuntimeError("the-token"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_any_other_failure_is_unclear_and_is_not_tried_again(cloud: Cloud, fake: FakeCloud, error: Exception) -> None:
    fake.next_error = error
    answer = cloud.scale_out(PURCHASE, WORKER, PASSWORD)
    assert isinstance(answer, Unclear)
    assert answer.detail.startswith(type(error).__name__)
    assert "the-token" not in answer.detail
    assert len(fake.calls) == 1


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_purchase_follows_no_redirect(cloud: Cloud, fake: FakeCloud, status: int) -> None:
    fake.answers["/api/v2/clusters/c1"] = httpx.Response(status, headers={"location": "https://cs.test/elsewhere"})
    assert isinstance(cloud.scale_out(PURCHASE, WORKER, PASSWORD), Unclear)
    assert len(fake.calls) == 1


def test_an_answer_that_quotes_the_request_shows_no_secret(cloud: Cloud, fake: FakeCloud) -> None:
    def echo(request: httpx.Request) -> httpx.Response:
        told = request.content.decode() + repr(request.headers.raw) + "the-key-secret"
        return httpx.Response(400, json={"code": "InvalidParameter", "message": told[-480:] + told[:480]})

    fake.answers["/api/v2/clusters/c1"] = echo
    answer = cloud.scale_out(PURCHASE, WORKER, PASSWORD)
    assert isinstance(answer, Refused)
    for secret in (PASSWORD.get_secret_value(), "the-key-secret", "the-token"):
        assert secret not in repr(answer)


def test_an_imagined_purchase_is_taken_under_a_task_of_its_own() -> None:
    cloud = ImaginedCloud()
    tasks = {cloud.scale_out(build.purchase(n, imagined=True), WORKER, PASSWORD).task_id for n in (1, 2)}
    assert tasks == {"imagined-nonce-1", "imagined-nonce-2"}
