"""The sandbox cloud: what it sells and refuses, how its lists behave, and each of its misbehaviours."""

import json
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import httpx
import pytest
from pydantic import SecretStr

from autoscaler.sandbox import (
    TEST_CREDENTIALS,
    Answer,
    Cut,
    Dripping,
    Fate,
    Fault,
    Late,
    Listing,
    SandboxCloud,
    Shape,
    Truncated,
    throttled,
)
from autoscaler.sandbox.control import Control
from autoscaler.sandbox.order_form import parse_order
from autoscaler.sandbox.refusals import Refusal
from autoscaler.sandbox.signature import Verifier
from autoscaler.sandbox.wire import Request
from autoscaler.sandbox.world import add_months
from autoscaler.signing import Credential, sign

NOW = datetime(2026, 6, 1, 12, 0, tzinfo=UTC)
CLUSTER = "Cccfd68c474454665ace07efce924ab12"
SECOND, MINUTE, HOUR = timedelta(seconds=1), timedelta(minutes=1), timedelta(hours=1)
KEY_ID, KEY_SECRET = next(iter(TEST_CREDENTIALS.items()))
PASSWORD = "Hello1234!"
ORDER = {
    "timeout_mins": 60,
    "worker_instance_type": "ens.sn1.tiny",
    "ens_region_id": "cn-beijing-telecom",
    "worker_image_id": "m-2QVLO2T8NYgm8CNQVg15gF",
    "ens_internet_charge_type": "BandwidthByDay",
    "worker_period": 1,
    "worker_auto_renew": True,
    "worker_auto_renew_period": 1,
    "login_password": PASSWORD,
    "count": 3,
    "worker_system_disk_size": 20,
    "worker_data_disk_size": 0,
    "is_edge_worker": True,
}
VECTORS = json.loads((Path(__file__).parent / "data" / "signature_vectors.json").read_text())


class Clock:
    """Time that stands still until a test moves it."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> datetime:
        return self.now

    def pass_by(self, duration: timedelta) -> None:
        self.now += duration


class Customer:
    """Sends signed requests, and lets a test spoil them on the way."""

    def __init__(self, cloud: SandboxCloud, clock: Clock, *, timeout: float = 5) -> None:
        self.clock = clock
        self.token: str | None = None
        self.secret = KEY_SECRET
        self._cloud = cloud
        self._sent = 0
        self._client = httpx.Client(base_url=cloud.url, timeout=timeout, trust_env=False)

    def send(
        self,
        method: str,
        path: str,
        action: str,
        body: bytes | None = None,
        *,
        nonce: str | None = None,
        at: datetime | None = None,
        version: str = "2015-12-15",
        key_id: str = KEY_ID,
        spoil: Callable[[dict[str, str]], None] = lambda _: None,
        sent_body: bytes | None = None,
        query: Mapping[str, str] | None = None,
    ) -> httpx.Response:
        self._sent += 1
        headers = sign(
            method,
            path,
            query or {},
            body,
            host=self._cloud.url.removeprefix("http://"),
            action=action,
            credential=Credential(key_id, SecretStr(self.secret), SecretStr(self.token) if self.token else None),
            nonce=nonce or f"nonce-{self._sent}",
            at=at or self.clock(),
            version=version,
        )
        headers["accept"] = "application/json"
        spoil(headers)
        target = f"{path}?{urlencode(query)}" if query else path
        return self._client.request(method, target, content=body if sent_body is None else sent_body, headers=headers)

    def buy(self, order: Mapping[str, object] | bytes = ORDER, cluster: str = CLUSTER, **spoilt: Any) -> httpx.Response:
        body = order if isinstance(order, bytes) else json.dumps(order).encode()
        return self.send("POST", f"/api/v2/clusters/{cluster}", "ScaleOutCluster", body, **spoilt)

    def nodes(self, **query: str) -> httpx.Response:
        return self.send("GET", f"/clusters/{CLUSTER}/nodes", "DescribeClusterNodes", query=query)

    def listed(self) -> list[dict[str, Any]]:
        nodes: list[dict[str, Any]] = self.nodes(pageSize="100").json()["nodes"]
        return nodes

    def task(self, task_id: str) -> httpx.Response:
        return self.send("GET", f"/tasks/{task_id}", "DescribeTaskInfo")

    def tasks(self) -> list[dict[str, Any]]:
        response = self.send("GET", f"/clusters/{CLUSTER}/tasks", "DescribeClusterTasks")
        tasks: list[dict[str, Any]] = response.json()["tasks"]
        return tasks

    def cluster(self) -> dict[str, Any]:
        detail: dict[str, Any] = self.send("GET", f"/clusters/{CLUSTER}", "DescribeClusterDetail").json()
        return detail

    def close(self) -> None:
        self._client.close()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def cloud(clock: Clock) -> Iterator[SandboxCloud]:
    with SandboxCloud(clock=clock, join_delay=10 * MINUTE) as cloud:
        cloud.add_cluster(CLUSTER, workers=2, masters=1)
        yield cloud


@pytest.fixture
def customer(cloud: SandboxCloud, clock: Clock) -> Iterator[Customer]:
    customer = Customer(cloud, clock)
    yield customer
    customer.close()


# --- selling ---


def test_a_sale_names_a_task_and_is_written_down_without_the_password(cloud: SandboxCloud, customer: Customer) -> None:
    response = customer.buy(nonce="the-nonce")

    assert response.status_code == 202
    assert response.json().keys() == {"cluster_id", "request_id", "task_id"}
    [order] = cloud.orders
    assert (order.at, order.cluster_id, order.count, order.nonce, order.origin) == (NOW, CLUSTER, 3, "the-nonce", "api")
    assert order.task_id == response.json()["task_id"]
    assert len(set(order.instance_ids)) == 3
    assert order.body == ORDER | {"login_password": "(redacted)"}
    assert PASSWORD not in repr(cloud.orders) + repr(cloud.requests)


def test_workers_are_listed_at_once_and_ready_when_they_joined(
    cloud: SandboxCloud, customer: Customer, clock: Clock
) -> None:
    customer.buy()
    assert {node["instance_id"] for node in customer.listed()} >= set(cloud.orders[0].instance_ids)
    assert [node["node_status"] for node in customer.listed()].count("NotReady") == 3
    assert customer.cluster()["state"] == "scaling"

    clock.pass_by(10 * MINUTE)

    assert {node["node_status"] for node in customer.listed()} == {"Ready"}
    assert cloud.ready_workers(CLUSTER) == 5
    assert customer.cluster() | {"request_id": ""} == {
        "cluster_id": CLUSTER,
        "name": "edge-Cccfd68c",
        "cluster_type": "ManagedKubernetes",
        "profile": "Edge",
        "region_id": "cn-beijing",
        "state": "running",
        "size": 6,
        "created": "2026-05-31T20:00:00+08:00",
        "request_id": "",
    }


def test_a_worker_bought_for_a_month_says_so_in_the_clouds_own_zone(customer: Customer) -> None:
    customer.buy()
    node = customer.listed()[-1]
    assert node["creation_time"] == "2026-06-01T20:00:00+08:00"
    assert node["expired_time"] == "2026-07-01T20:00:00+08:00"
    assert (node["instance_type"], node["instance_role"], node["state"]) == ("ens.sn1.tiny", "Worker", "initial")


@pytest.mark.parametrize(
    ("renewal", "left"),
    [
        pytest.param({"worker_auto_renew": True, "worker_auto_renew_period": 2}, 5, id="a renewed worker stays"),
        pytest.param({"worker_auto_renew": False}, 2, id="an unrenewed worker lapses at the end of its term"),
    ],
)
def test_end_of_the_term(
    cloud: SandboxCloud, customer: Customer, clock: Clock, renewal: dict[str, object], left: int
) -> None:
    customer.buy(ORDER | renewal)
    clock.pass_by(timedelta(days=40))
    assert cloud.ready_workers(CLUSTER) == left


def test_each_worker_may_take_its_own_time_to_join(clock: Clock) -> None:
    delays = iter([MINUTE, 2 * MINUTE, 30 * MINUTE])
    with SandboxCloud(clock=clock, join_delay=lambda: next(delays)) as cloud:
        cloud.add_cluster(CLUSTER)
        customer = Customer(cloud, clock)
        task_id = customer.buy().json()["task_id"]
        clock.pass_by(5 * MINUTE)
        assert cloud.ready_workers(CLUSTER) == 2
        assert customer.task(task_id).json()["state"] == "running"
        assert [each["status"] for each in customer.task(task_id).json()["task_result"]] == [
            "success",
            "success",
            "initial",
        ]
        clock.pass_by(25 * MINUTE)
        assert customer.task(task_id).json()["state"] == "success"
        customer.close()


def test_workers_are_listed_only_after_the_list_delay(clock: Clock) -> None:
    with SandboxCloud(clock=clock, list_delay=2 * MINUTE) as cloud:
        cloud.add_cluster(CLUSTER)
        customer = Customer(cloud, clock)
        customer.buy()
        assert customer.listed() == []
        clock.pass_by(2 * MINUTE)
        assert len(customer.listed()) == 3
        customer.close()


@pytest.mark.parametrize(
    ("at", "months", "end"),
    [
        pytest.param("2026-01-31", 1, "2026-02-28", id="the last of a shorter month"),
        pytest.param("2027-12-15", 1, "2028-01-15", id="over the end of a year"),
        pytest.param("2028-02-29", 12, "2029-02-28", id="a leap day a year on"),
    ],
)
def test_months_end_where_the_calendar_says(at: str, months: int, end: str) -> None:
    assert add_months(datetime.fromisoformat(at), months) == datetime.fromisoformat(end)


# --- the signature ---


@pytest.mark.parametrize("name", ["acs3_scaleout", "acs3_nodes"])
def test_a_request_signed_by_the_official_library_is_accepted(name: str) -> None:
    _verifier().verify(_published(name), datetime(2023, 10, 26, 10, 30, tzinfo=UTC))


@pytest.mark.parametrize("position", range(5))
def test_a_changed_byte_of_the_body_is_noticed_wherever_it_is(position: int) -> None:
    request = _published("acs3_scaleout")
    at = len(request.body) * position // 5
    body = request.body[:at] + bytes([request.body[at] ^ 1]) + request.body[at + 1 :]
    changed = Request(request.method, request.path, request.query, request.headers, body)
    with pytest.raises(Refusal, match="SignatureDoesNotMatch"):
        _verifier().verify(changed, datetime(2023, 10, 26, 10, 30, tzinfo=UTC))


def _verifier() -> Verifier:
    return Verifier({VECTORS["access_key_id"]: VECTORS["access_key_secret"]}, {})


def _published(name: str) -> Request:
    vector = VECTORS["vectors"][name]
    headers = {**vector["headers"], "authorization": vector["authorization"]}
    return Request(
        vector["method"],
        vector["pathname"],
        urlencode(vector["query"]),
        tuple(headers.items()),
        (vector["body"] or "").encode(),
    )


def _drop(name: str) -> Callable[[dict[str, str]], None]:
    def spoil(headers: dict[str, str]) -> None:
        del headers[name]

    return spoil


def _put(name: str, value: str) -> Callable[[dict[str, str]], None]:
    def spoil(headers: dict[str, str]) -> None:
        headers[name] = value

    return spoil


def _unsign(name: str) -> Callable[[dict[str, str]], None]:
    def spoil(headers: dict[str, str]) -> None:
        headers["authorization"] = re.sub(rf"{name};|;{name}(?=,)", "", headers["authorization"])

    return spoil


@pytest.mark.parametrize(
    ("spoilt", "code"),
    [
        pytest.param({"spoil": _drop("authorization")}, "IncompleteSignature", id="not signed at all"),
        pytest.param({"spoil": _put("authorization", "Bearer x")}, "IncompleteSignature", id="signed some other way"),
        pytest.param({"key_id": "LTAI5tUNKNOWN"}, "InvalidAccessKeyId.NotFound", id="unknown access key"),
        pytest.param({"sent_body": b"{}"}, "SignatureDoesNotMatch", id="another body than was hashed"),
        pytest.param({"spoil": _put("x-acs-action", "Buy")}, "SignatureDoesNotMatch", id="a header changed on the way"),
        pytest.param({"spoil": _put("x-acs-extra", "1")}, "IncompleteSignature", id="an x-acs header left unsigned"),
        pytest.param({"spoil": _unsign("content-type")}, "IncompleteSignature", id="content type left unsigned"),
        pytest.param({"spoil": _unsign("host")}, "IncompleteSignature", id="host left unsigned"),
        pytest.param({"spoil": _drop("x-acs-version")}, "IncompleteSignature", id="a signed header that is missing"),
        pytest.param({"at": NOW - 15 * MINUTE - SECOND}, "InvalidTimeStamp.Expired", id="signed over 15 min ago"),
        pytest.param({"at": NOW + 15 * MINUTE + SECOND}, "InvalidTimeStamp.Expired", id="signed in the future"),
        pytest.param({"spoil": _put("x-acs-date", "now")}, "InvalidTimeStamp.Format", id="a date that is none"),
        pytest.param({"version": "2014-05-26"}, "InvalidVersion", id="another API's version"),
    ],
)
def test_a_request_that_is_not_signed_as_it_must_be_buys_nothing(
    cloud: SandboxCloud, customer: Customer, spoilt: dict[str, Any], code: str
) -> None:
    response = customer.buy(**spoilt)
    assert (response.json()["Code"], cloud.orders) == (code, [])
    assert cloud.requests[-1].code == code


def test_a_wrong_secret_does_not_match(cloud: SandboxCloud, customer: Customer) -> None:
    customer.secret = "AnotherSecret"
    assert customer.buy().json()["Code"] == "SignatureDoesNotMatch"
    cloud.credentials[KEY_ID] = "AnotherSecret"
    assert customer.buy().status_code == 202


def test_a_date_at_the_edge_of_the_window_is_accepted(customer: Customer) -> None:
    assert customer.buy(at=NOW - 15 * MINUTE).status_code == 202


def test_a_nonce_serves_once(cloud: SandboxCloud, customer: Customer) -> None:
    assert customer.buy(nonce="twice").status_code == 202
    assert customer.buy(nonce="twice").json()["Code"] == "SignatureNonceUsed"
    assert len(cloud.orders) == 1


def test_an_action_that_does_not_fit_the_path_is_refused(customer: Customer) -> None:
    response = customer.send("GET", "/quota", "DescribeClusterNodes")
    assert (response.status_code, response.json()["Code"]) == (404, "InvalidApi.NotFound")


def test_a_query_is_verified_as_it_was_sent(customer: Customer) -> None:
    assert customer.nodes(state="all", pageSize="100", pageNumber="1").status_code == 200
    quoted = customer.nodes(state="a b/ü~*")
    assert quoted.json()["code"] == "InvalidParameter.state"


def test_a_temporary_key_needs_its_token(cloud: SandboxCloud, customer: Customer) -> None:
    cloud.security_tokens[KEY_ID] = "a-token"
    assert customer.buy().json()["Code"] == "InvalidSecurityToken.MismatchWithAccessKey"
    customer.token = "a-token"
    assert customer.buy().status_code == 202


# --- the order form ---


@pytest.mark.parametrize(
    ("change", "code"),
    [
        pytest.param({"count": 0}, "InvalidParameter.count", id="no workers"),
        pytest.param({"count": "3"}, "InvalidParameter.count", id="a count in quotes"),
        pytest.param({"count": True}, "InvalidParameter.count", id="a count that is a truth value"),
        pytest.param({"worker_instance_type": ""}, "InvalidParameter.worker_instance_type", id="no type"),
        pytest.param({"ens_internet_charge_type": "Free"}, "InvalidParameter.ens_internet_charge_type", id="charge"),
        pytest.param({"worker_period": 10}, "InvalidParameter.worker_period", id="ten months are not sold"),
        pytest.param({"login_password": "hello1234"}, "InvalidParameter.login_password", id="two kinds of characters"),
        pytest.param({"login_password": "He1!"}, "InvalidParameter.login_password", id="a short password"),
        pytest.param({"worker_system_disk_size": 25}, "InvalidParameter.worker_system_disk_size", id="25 GiB"),
        pytest.param({"worker_system_disk_size": 110}, "InvalidParameter.worker_system_disk_size", id="110 GiB"),
        pytest.param({"worker_data_disk_size": 10}, "InvalidParameter.worker_data_disk_size", id="10 GiB of data"),
        pytest.param({"is_edge_worker": False}, "InvalidParameter.is_edge_worker", id="no edge worker"),
        pytest.param({"is_edge_worker": 1}, "InvalidParameter.is_edge_worker", id="1 for true"),
        pytest.param({"worker_auto_renew": "true"}, "InvalidParameter.worker_auto_renew", id="true in quotes"),
        pytest.param({"worker_auto_renew_period": 13}, "InvalidParameter.worker_auto_renew_period", id="13 months"),
        pytest.param({"timeout_mins": 0}, "InvalidParameter.timeout_mins", id="no time"),
        pytest.param({"nonsense": 1}, "InvalidParameter.nonsense", id="a field that there is not"),
    ],
)
def test_each_field_of_an_order_is_validated(
    cloud: SandboxCloud, customer: Customer, change: dict[str, object], code: str
) -> None:
    response = customer.buy(ORDER | change)
    assert (response.status_code, response.json()["code"], cloud.orders) == (400, code, [])


REQUIRED = sorted(ORDER.keys() - {"worker_data_disk_size", "worker_auto_renew", "timeout_mins"})


@pytest.mark.parametrize("field", REQUIRED)
def test_a_required_field_may_not_be_left_out(customer: Customer, field: str) -> None:
    order = {name: value for name, value in ORDER.items() if name != field}
    assert customer.buy(order).json()["code"] == f"MissingParameter.{field}"


@pytest.mark.parametrize("field", ["worker_data_disk_size", "timeout_mins"])
def test_an_optional_field_may_be_left_out(customer: Customer, field: str) -> None:
    assert customer.buy({name: value for name, value in ORDER.items() if name != field}).status_code == 202


@pytest.mark.parametrize("content_type", [None, "text/json", "application/x-www-form-urlencoded"])
def test_another_content_type_is_answered_in_plain_text(content_type: str | None) -> None:
    with pytest.raises(Refusal) as refused:
        parse_order(content_type, json.dumps(ORDER).encode())
    assert (refused.value.status, refused.value.shape) == (415, Shape.TEXT)


@pytest.mark.parametrize("body", [b"[]", b"{", b"\xff"], ids=["a list", "half an object", "not text"])
def test_a_body_that_is_no_json_object_is_refused(customer: Customer, body: bytes) -> None:
    assert customer.buy(body).json()["code"] == "InvalidParameter.Body"


# --- clusters ---


def test_an_unknown_cluster_is_not_found(customer: Customer) -> None:
    response = customer.buy(cluster="Cunknown")
    assert (response.status_code, response.json()["code"]) == (404, "ErrorClusterNotFound")


def test_a_cluster_at_work_sells_nothing_until_its_task_ended(
    cloud: SandboxCloud, customer: Customer, clock: Clock
) -> None:
    customer.buy()
    refused = customer.buy().json()
    assert refused["code"] == "InvalidStatus.Cluster"
    assert refused["message"] == "cannot operate cluster where state is scaling"
    clock.pass_by(10 * MINUTE)
    assert customer.buy().status_code == 202
    assert len(cloud.orders) == 2


def test_a_cluster_may_sell_while_it_scales(cloud: SandboxCloud, customer: Customer) -> None:
    cloud.add_cluster("Cbusy", sells_while_scaling=True)
    assert [customer.buy(cluster="Cbusy").status_code for _ in range(2)] == [202, 202]


def test_a_cluster_in_another_state_says_so(cloud: SandboxCloud, customer: Customer) -> None:
    cloud.set_cluster(CLUSTER, state="upgrading")
    assert customer.cluster()["state"] == "upgrading"
    assert customer.buy().json()["message"] == "cannot operate cluster where state is upgrading"


def test_no_more_nodes_than_the_quota(clock: Clock) -> None:
    with SandboxCloud(clock=clock, node_quota=4) as cloud:
        cloud.add_cluster(CLUSTER, workers=2)
        customer = Customer(cloud, clock)
        assert customer.send("GET", "/quota", "DescribeUserQuota").json()["node_quota"] == 4
        assert customer.buy().json()["code"] == "QuotaExceeded.Node"
        assert customer.buy(ORDER | {"count": 2}).status_code == 202
        customer.close()


def test_lost_workers_are_not_ready_until_they_recover(cloud: SandboxCloud, customer: Customer) -> None:
    cloud.lose(CLUSTER, 1)
    assert [node["node_status"] for node in customer.listed()] == ["NotReady", "Ready", "Ready"]
    assert cloud.ready_workers(CLUSTER) == 1
    cloud.recover(CLUSTER)
    assert cloud.ready_workers(CLUSTER) == 2


@pytest.mark.parametrize("with_task", [True, False], ids=["with a task", "without one"])
def test_a_colleague_buys_by_the_console(cloud: SandboxCloud, customer: Customer, with_task: bool) -> None:
    order = cloud.buy_by_console(CLUSTER, 2, with_task=with_task)
    assert (order.origin, order.nonce, order.count) == ("console", None, 2)
    assert len(customer.tasks()) == with_task
    assert len(customer.listed()) == 5
    assert customer.cluster()["state"] == ("scaling" if with_task else "running")


# --- lists ---


def test_pages_are_of_ten_unless_asked_for_and_of_a_hundred_at_most(cloud: SandboxCloud, customer: Customer) -> None:
    cloud.add_cluster("Cmany", workers=120)
    path = "/clusters/Cmany/nodes"

    def page(**query: str) -> dict[str, Any]:
        answer: dict[str, Any] = customer.send("GET", path, "DescribeClusterNodes", query=query).json()
        return answer

    assert len(page()["nodes"]) == 10
    first, second = page(pageSize="100"), page(pageSize="100", pageNumber="2")
    ids = [node["instance_id"] for node in first["nodes"] + second["nodes"]]
    assert (len(first["nodes"]), len(ids), len(set(ids))) == (100, 120, 120)
    assert second["page"] == {"page_number": 2, "page_size": 100, "total_count": 120}
    assert page(pageNumber="99")["nodes"] == []
    assert page(pageSize="101")["code"] == "InvalidParameter.pageSize"
    assert page(pageNumber="0")["code"] == "InvalidParameter.pageNumber"


def test_the_node_list_may_be_asked_for_one_state(customer: Customer) -> None:
    customer.buy()
    assert len(customer.nodes(state="initial").json()["nodes"]) == 3
    assert customer.nodes(state="running").json()["page"]["total_count"] == 3


def test_tasks_are_listed_newest_first(customer: Customer, clock: Clock) -> None:
    first = customer.buy().json()["task_id"]
    clock.pass_by(HOUR)
    second = customer.buy().json()["task_id"]
    assert [task["task_id"] for task in customer.tasks()] == [second, first]
    assert customer.tasks()[1] == {
        "task_id": first,
        "task_type": "cluster_scaleout",
        "state": "success",
        "created": "2026-06-01T20:00:00+08:00",
        "updated": "2026-06-01T20:10:00+08:00",
    }


def test_a_lagging_list_shows_how_things_were(cloud: SandboxCloud, customer: Customer, clock: Clock) -> None:
    cloud.set_cluster(CLUSTER, listing=Listing(lag=5 * MINUTE))
    customer.buy()
    assert len(customer.listed()) == 3
    clock.pass_by(10 * MINUTE)
    assert [node["node_status"] for node in customer.listed()].count("NotReady") == 3
    clock.pass_by(5 * MINUTE)
    assert [node["node_status"] for node in customer.listed()].count("Ready") == 6


def test_a_list_may_go_back_and_forth(cloud: SandboxCloud, customer: Customer, clock: Clock) -> None:
    customer.buy()
    clock.pass_by(MINUTE)
    cloud.set_cluster(CLUSTER, listing=Listing(back_and_forth=2 * MINUTE))
    assert [len(customer.listed()) for _ in range(4)] == [6, 3, 6, 3]


def test_a_total_may_be_wrong(cloud: SandboxCloud, customer: Customer) -> None:
    cloud.set_cluster(CLUSTER, listing=Listing(total_off_by=1))
    assert (len(customer.listed()), customer.nodes().json()["page"]["total_count"]) == (3, 4)


def test_pages_may_be_empty_under_a_right_total(cloud: SandboxCloud, customer: Customer) -> None:
    cloud.set_cluster(CLUSTER, listing=Listing(empty_page=True))
    answer = customer.nodes().json()
    assert (answer["nodes"], answer["page"]["total_count"]) == ([], 3)


# --- tasks ---


@pytest.mark.parametrize(
    ("fate", "state", "statuses", "ready"),
    [
        pytest.param(Fate(), "success", ["success"] * 3, 5, id="everything arrives"),
        pytest.param(Fate(arrive=0), "failed", ["failed"] * 3, 2, id="it fails"),
        pytest.param(Fate(arrive=0, state="fail"), "fail", ["failed"] * 3, 2, id="it fails in the API's other word"),
        pytest.param(Fate(arrive=2), "failed", ["success", "success", "failed"], 4, id="it succeeds in part"),
        pytest.param(
            Fate(arrive=1, state="success"), "success", ["success", "failed", "failed"], 3, id="in part, called success"
        ),
    ],
)
def test_the_fate_of_a_task(
    cloud: SandboxCloud, customer: Customer, clock: Clock, fate: Fate, state: str, statuses: list[str], ready: int
) -> None:
    cloud.doom_next(fate)
    task_id = customer.buy().json()["task_id"]
    assert customer.task(task_id).json()["state"] == "running"
    clock.pass_by(10 * MINUTE)
    task = customer.task(task_id).json()
    assert (task["state"], [each["status"] for each in task["task_result"]]) == (state, statuses)
    assert ("error" in task) == (state != "success")
    assert [each["data"] for each in task["task_result"]] == list(cloud.orders[0].instance_ids)
    assert cloud.ready_workers(CLUSTER) == ready


def test_workers_of_a_failed_task_may_join_an_hour_later(cloud: SandboxCloud, customer: Customer, clock: Clock) -> None:
    cloud.doom_next(Fate(state="failed", ends_after=MINUTE, joins_after=HOUR))
    task_id = customer.buy().json()["task_id"]
    clock.pass_by(MINUTE)
    assert customer.task(task_id).json()["state"] == "failed"
    clock.pass_by(HOUR)
    assert cloud.ready_workers(CLUSTER) == 5


def test_a_task_may_be_unknown_for_a_while_or_some_asks(cloud: SandboxCloud, customer: Customer, clock: Clock) -> None:
    cloud.doom_next(Fate(hidden_asks=2))
    task_id = customer.buy().json()["task_id"]
    assert [customer.task(task_id).status_code for _ in range(3)] == [404, 404, 200]
    clock.pass_by(HOUR)
    cloud.doom_next(Fate(hidden_for=MINUTE, in_task_list=False))
    task_id = customer.buy().json()["task_id"]
    assert customer.task(task_id).status_code == 404
    clock.pass_by(MINUTE)
    assert customer.task(task_id).status_code == 200
    assert task_id not in [task["task_id"] for task in customer.tasks()]


def test_a_fate_is_kept_for_the_next_sale(cloud: SandboxCloud, customer: Customer, clock: Clock) -> None:
    cloud.doom_next(Fate(arrive=0))
    assert customer.buy(ORDER | {"count": 0}).status_code == 400
    cloud.buy_by_console(CLUSTER, 1, with_task=False)
    customer.buy()
    clock.pass_by(HOUR)
    assert cloud.ready_workers(CLUSTER) == 3


# --- misbehaviour ---


@pytest.mark.parametrize(
    ("fault", "sold"),
    [
        pytest.param(Cut(sold=False), False, id="closed before the sale"),
        pytest.param(Cut(sold=True), True, id="closed after the sale"),
        pytest.param(Cut(sold=False, reset=True), False, id="reset before the sale"),
        pytest.param(Cut(sold=True, reset=True), True, id="reset after the sale"),
        pytest.param(Truncated(), True, id="body cut short after the sale"),
    ],
)
def test_a_connection_that_breaks(cloud: SandboxCloud, customer: Customer, fault: Fault, sold: bool) -> None:
    cloud.fail_next(fault)
    with pytest.raises((httpx.ReadError, httpx.RemoteProtocolError)):
        customer.buy()
    assert len(cloud.orders) == cloud.requests[-1].sold == sold


@pytest.mark.parametrize(
    ("fault", "seen"),
    [
        pytest.param(Late(timedelta(seconds=30)), 1, id="sold on arrival"),
        pytest.param(Late(timedelta(seconds=30), processed="late"), 0, id="not looked at yet"),
    ],
)
def test_an_answer_that_comes_too_late(cloud: SandboxCloud, clock: Clock, fault: Fault, seen: int) -> None:
    impatient = Customer(cloud, clock, timeout=0.2)
    cloud.fail_next(fault)
    with pytest.raises(httpx.ReadTimeout):
        impatient.buy()
    assert len(cloud.orders) == seen
    impatient.close()


def test_a_request_left_in_a_queue_is_sold_though_the_buyer_has_gone(clock: Clock) -> None:
    sold = threading.Event()

    def joins() -> timedelta:
        sold.set()
        return MINUTE

    with SandboxCloud(clock=clock, join_delay=joins) as cloud:
        cloud.add_cluster(CLUSTER)
        impatient = Customer(cloud, clock, timeout=0.05)
        cloud.fail_next(Late(timedelta(seconds=0.2), processed="late"))
        with pytest.raises(httpx.ReadTimeout):
            impatient.buy()
        impatient.close()
        assert sold.wait(5)


def test_what_lies_in_the_queue_of_a_cloud_that_goes_down_is_not_sold(cloud: SandboxCloud, clock: Clock) -> None:
    impatient = Customer(cloud, clock, timeout=0.05)
    before = threading.enumerate()
    cloud.fail_next(Late(timedelta(seconds=30), processed="late"))
    with pytest.raises(httpx.ReadTimeout):
        impatient.buy()
    answering = [thread for thread in threading.enumerate() if thread not in before]
    cloud.close()
    for thread in answering:
        thread.join(5)
    assert len(answering) == 1
    assert cloud.orders == []
    impatient.close()


def test_a_dripping_answer_passes_every_read_timeout(cloud: SandboxCloud, clock: Clock) -> None:
    patient = Customer(cloud, clock, timeout=1)
    cloud.fail_next(Dripping(timedelta(milliseconds=2)))
    assert patient.buy().status_code == 202
    patient.close()


@pytest.mark.parametrize("sold", [True, False])
def test_a_server_error_before_and_after_the_sale(cloud: SandboxCloud, customer: Customer, sold: bool) -> None:
    cloud.fail_next(Answer(500, "InternalError", sold=sold))
    assert customer.buy().status_code == 500
    assert len(cloud.orders) == sold


def test_an_answer_without_a_task_after_a_sale(cloud: SandboxCloud, customer: Customer) -> None:
    cloud.fail_next(Answer(202, body="{}", sold=True))
    assert customer.buy().json() == {}
    assert len(cloud.orders) == 1


@pytest.mark.parametrize("status", [400, 429, 503])
def test_throttling(cloud: SandboxCloud, customer: Customer, status: int) -> None:
    cloud.fail_next(throttled(status))
    response = customer.buy()
    assert (response.status_code, response.json()["Code"], cloud.orders) == (status, "Throttling.User", [])


@pytest.mark.parametrize(
    ("shape", "body"),
    [
        pytest.param(Shape.JSON_UPPER, '"Code": "Forbidden.RAM"', id="the gateway's JSON"),
        pytest.param(Shape.JSON_LOWER, '"code": "Forbidden.RAM"', id="the service's JSON"),
        pytest.param(Shape.TEXT, "code=Forbidden.RAM, message=<no>", id="plain text"),
        pytest.param(Shape.XML, "<Code>Forbidden.RAM</Code><Message>&lt;no&gt;</Message>", id="XML"),
        pytest.param(Shape.HTML, "<h1>&lt;no&gt;</h1>", id="a proxy's HTML, without the code"),
        pytest.param(Shape.EMPTY, "", id="nothing"),
    ],
)
def test_a_refusal_comes_in_every_shape(cloud: SandboxCloud, customer: Customer, shape: Shape, body: str) -> None:
    cloud.fail_next(Answer(403, "Forbidden.RAM", "<no>", shape))
    response = customer.buy()
    assert response.status_code == 403
    assert (body in response.text) if body else response.content == b""


def test_faults_are_used_in_turn_and_only_for_their_action(cloud: SandboxCloud, customer: Customer) -> None:
    cloud.fail_next(Answer(500), action="DescribeClusterNodes", times=2)
    cloud.fail_next(throttled())
    cloud.fail_next(Answer(502))
    assert [customer.buy().status_code for _ in range(3)] == [503, 502, 202]
    assert [customer.nodes().status_code for _ in range(3)] == [500, 500, 200]


def test_a_standing_fault_lasts_until_it_is_healed(cloud: SandboxCloud, customer: Customer) -> None:
    cloud.fail_always(Answer(404, "InvalidApi.NotFound"))
    assert [customer.buy().status_code for _ in range(3)] == [404, 404, 404]
    cloud.heal()
    assert customer.buy().status_code == 202


def test_a_skewed_clock_shows_in_the_date(cloud: SandboxCloud, customer: Customer) -> None:
    assert customer.cluster()
    cloud.skew = 2 * MINUTE
    assert customer.nodes().headers["date"] == "Mon, 01 Jun 2026 12:02:00 GMT"
    cloud.skew = 16 * MINUTE
    assert customer.buy().json()["Code"] == "InvalidTimeStamp.Expired"


def test_without_an_accept_header_the_answer_is_xml(customer: Customer) -> None:
    response = customer.nodes()
    assert response.headers["content-type"].startswith("application/json")
    response = customer.send("GET", "/quota", "DescribeUserQuota", spoil=_put("accept", "*/*"))
    assert "<node_quota>100</node_quota>" in response.text


def test_an_unknown_path_is_an_unknown_api(cloud: SandboxCloud, customer: Customer) -> None:
    assert customer.send("GET", "/api/v3/clusters", "ScaleOutCluster").json()["code"] == "InvalidApi.NotFound"
    assert cloud.requests[-1].status == 404


def test_a_cloud_that_is_down_refuses_connections_and_forgets_nothing(
    cloud: SandboxCloud, customer: Customer, clock: Clock
) -> None:
    customer.buy()
    url = cloud.url
    cloud.close()
    with pytest.raises(httpx.ConnectError):
        Customer(cloud, clock).nodes()
    cloud.start()
    assert cloud.url == url
    assert len(customer.listed()) == 6


# --- steering it from another process ---


@pytest.fixture
def steered(cloud: SandboxCloud) -> Iterator[httpx.Client]:
    cloud.steer_by(Control(cloud))
    with httpx.Client(base_url=f"{cloud.url}/_sandbox/", trust_env=False) as client:
        yield client


@pytest.mark.parametrize(
    ("fault", "status"),
    [
        pytest.param({"kind": "answer", "status": 500, "sold": True}, 500, id="an answer after the sale"),
        pytest.param({"kind": "late", "by": 0.01}, 202, id="a late one, in seconds"),
        pytest.param({"kind": "dripping", "every": "PT0.001S"}, 202, id="a dripping one, in ISO 8601"),
    ],
)
def test_a_fault_by_http(
    cloud: SandboxCloud, customer: Customer, steered: httpx.Client, fault: dict[str, object], status: int
) -> None:
    assert steered.post("fault", json={"fault": fault}).status_code == 200
    assert customer.buy().status_code == status
    assert len(cloud.orders) == 1


def test_what_has_not_been_met_yet_by_http(customer: Customer, steered: httpx.Client) -> None:
    steered.post("fault", json={"fault": {"kind": "cut", "sold": False}, "action": "DescribeClusterNodes"})
    steered.post("fault", json={"fault": {"kind": "answer", "status": 500, "sold": True}})
    steered.post("fate", json={"fate": {"arrive": 0}})
    assert steered.get("unused").json() == ["DescribeClusterNodes", "ScaleOutCluster", ""]
    customer.buy()
    assert steered.get("unused").json() == ["DescribeClusterNodes"]
    steered.post("heal")
    assert steered.get("unused").json() == []


def test_the_world_by_http(cloud: SandboxCloud, customer: Customer, clock: Clock, steered: httpx.Client) -> None:
    steered.post("clusters", json={"cluster_id": "Cnew", "workers": 4})
    steered.post("lose", json={"cluster_id": "Cnew", "count": 1})
    steered.post("fate", json={"fate": {"arrive": 1, "ends_after": 60}})
    customer.buy()
    clock.pass_by(HOUR)
    shown = steered.get("clusters").json()
    assert shown == {CLUSTER: {"ready_workers": 3}, "Cnew": {"ready_workers": 3}}
    steered.post("recover", json={"cluster_id": "Cnew"})
    steered.post("console", json={"cluster_id": "Cnew", "count": 2})
    orders = steered.get("orders").json()
    assert [(order["origin"], order["count"]) for order in orders] == [("api", 3), ("console", 2)]
    assert PASSWORD not in json.dumps(orders)
    assert steered.get("requests").json()[0]["status"] == 202
    steered.post("cluster", json={"cluster_id": CLUSTER, "listing": {"total_off_by": 2}})
    assert customer.nodes().json()["page"]["total_count"] == 6
    steered.post("skew", json={"by": 120})
    assert cloud.skew == 2 * MINUTE


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        pytest.param("fault", {"fault": {"kind": "cut", "slod": True}}, 400, id="a field misspelt"),
        pytest.param("fault", {"fault": {"kind": "explode"}}, 400, id="no such fault"),
        pytest.param("lose", {"cluster_id": "Cunknown", "count": 1}, 400, id="no such cluster"),
        pytest.param("lose", {"cluster": CLUSTER}, 400, id="no such argument"),
        pytest.param("lose", [1], 400, id="no arguments by name"),
        pytest.param("explode", {}, 404, id="no such command"),
    ],
)
def test_a_wrong_command_says_what_is_wrong(steered: httpx.Client, path: str, body: object, status: int) -> None:
    response = steered.post(path, json=body)
    assert (response.status_code, "error" in response.json()) == (status, True)


def test_the_sandbox_as_a_process() -> None:
    arguments = [sys.executable, "-m", "autoscaler.sandbox", "--cluster", f"{CLUSTER}=2", "--join-delay", "0"]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            url = process.stdout.readline().strip()
            clusters = httpx.get(f"{url}/_sandbox/clusters", trust_env=False).json()
        finally:
            process.terminate()
    assert clusters == {CLUSTER: {"ready_workers": 2}}
    assert process.returncode == 0
