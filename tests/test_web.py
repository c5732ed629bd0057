import json
import socket
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, Gauge
from starlette.testclient import TestClient

from autoscaler.web import ListenError, create_app, serve
from tests.counter import Counter


@dataclass
class FakeVitals:
    """A daemon in the best of health, until a field says otherwise."""

    age: timedelta | None = timedelta(seconds=1)
    alive: dict[str, bool] = field(default_factory=lambda: {"evaluation": True, "purchase": True})
    loaded: int | None = 3
    left: int = 0
    problem: str | None = None
    next_error: Exception | None = None
    answers: threading.Event = field(default_factory=threading.Event)
    calls: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.answers.set()

    def heartbeat_age(self) -> timedelta | None:
        return self.age

    def pools(self) -> Mapping[str, bool]:
        return self.alive

    def policies(self) -> int | None:
        return self.loaded

    def unevaluated(self) -> int:
        return self.left

    def ledger_problem(self) -> str | None:
        self.calls.append("ledger_problem")
        self.answers.wait()
        if self.next_error is not None:
            raise self.next_error
        return self.problem


@pytest.fixture
def vitals() -> Iterator[FakeVitals]:
    fake = FakeVitals()
    yield fake
    fake.answers.set()


@pytest.fixture
def client(vitals: FakeVitals) -> Iterator[TestClient]:
    registry = CollectorRegistry()
    Gauge("autoscaler_policies", "Policies that are evaluated.", registry=registry).set(3)
    with TestClient(create_app(vitals, registry, Counter().desk()), raise_server_exceptions=False) as client:
        yield client


def failing(body: dict[str, Any]) -> dict[str, str]:
    return {name: check["says"] for name, check in body["checks"].items() if not check["ok"]}


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
def test_a_daemon_that_does_its_work_is_well(client: TestClient, path: str) -> None:
    response = client.get(path)
    assert response.status_code == 200
    assert response.json()["status"] == "ok"
    assert failing(response.json()) == {}


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        pytest.param({"age": None}, {"heartbeat": "the scheduler has not run yet"}, id="no heartbeat yet"),
        pytest.param(
            {"age": timedelta(seconds=31)}, {"heartbeat": "the scheduler ran 31.0 s ago"}, id="the scheduler is dead"
        ),
        pytest.param(
            {"alive": {"evaluation": True, "purchase": False}},
            {"purchase_pool": "takes no more work"},
            id="a pool is gone",
        ),
        pytest.param(
            {"age": None, "alive": {"evaluation": False}},
            {"heartbeat": "the scheduler has not run yet", "evaluation_pool": "takes no more work"},
            id="everything that is wrong is told",
        ),
    ],
)
def test_healthz_fails(client: TestClient, vitals: FakeVitals, changes: dict[str, Any], says: dict[str, str]) -> None:
    for name, value in changes.items():
        setattr(vitals, name, value)
    response = client.get("/healthz")
    assert response.status_code == 503
    assert response.json()["status"] == "failing"
    assert failing(response.json()) == says


def test_a_heartbeat_is_old_only_beyond_thirty_seconds(client: TestClient, vitals: FakeVitals) -> None:
    vitals.age = timedelta(seconds=30)
    assert client.get("/healthz").status_code == 200


def test_healthz_looks_at_nothing_outside(client: TestClient, vitals: FakeVitals) -> None:
    vitals.problem, vitals.loaded, vitals.left = "the database is down", None, 9
    assert client.get("/healthz").status_code == 200
    assert vitals.calls == []


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        pytest.param({"problem": "disk I/O error"}, {"ledger": "disk I/O error"}, id="the ledger is broken"),
        pytest.param({"loaded": None}, {"policies": "not loaded yet"}, id="policies are not loaded yet"),
        pytest.param({"left": 2}, {"first_round": "2 not evaluated yet"}, id="the first round goes on"),
    ],
)
def test_readyz_fails(client: TestClient, vitals: FakeVitals, changes: dict[str, Any], says: dict[str, str]) -> None:
    for name, value in changes.items():
        setattr(vitals, name, value)
    response = client.get("/readyz")
    assert response.status_code == 503
    assert failing(response.json()) == says


def test_a_daemon_without_policies_is_ready(client: TestClient, vitals: FakeVitals) -> None:
    vitals.loaded = 0
    assert client.get("/readyz").status_code == 200


@pytest.mark.timeout(20)
def test_a_ledger_that_hangs_is_asked_once_and_holds_nothing_else(client: TestClient, vitals: FakeVitals) -> None:
    vitals.answers.clear()
    for _ in range(2):
        response = client.get("/readyz")
        assert response.status_code == 503
        assert failing(response.json()) == {"ledger": "has not answered within 0.8 s"}
    assert client.get("/healthz").status_code == 200
    assert vitals.calls == ["ledger_problem"]


@pytest.mark.timeout(20)
def test_a_ledger_that_answers_late_is_asked_again(client: TestClient, vitals: FakeVitals) -> None:
    vitals.answers.clear()
    client.get("/readyz")
    vitals.answers.set()
    # The late answer, or a second question: either way it is well again.
    assert client.get("/readyz").status_code == 200


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
def test_a_probe_may_ask_for_the_head_alone(client: TestClient, path: str) -> None:
    response = client.head(path)
    assert response.status_code == 200
    assert response.content == b""


@pytest.mark.parametrize(
    ("accept", "content_type", "end"),
    [
        pytest.param("", "text/plain; version=0.0.4; charset=utf-8", "autoscaler_policies 3.0\n", id="a browser"),
        pytest.param(
            "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5",
            "application/openmetrics-text; version=1.0.0; charset=utf-8",
            "# EOF\n",
            id="Prometheus",
        ),
    ],
)
def test_metrics_in_the_form_that_is_asked_for(client: TestClient, accept: str, content_type: str, end: str) -> None:
    response = client.get("/metrics", headers={"Accept": accept})
    assert response.status_code == 200
    assert response.headers["content-type"].startswith(content_type)
    assert response.text.endswith(end)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        pytest.param("GET", "/healthz", 200, id="an answer"),
        pytest.param("GET", "/nowhere", 404, id="no such page"),
        pytest.param("POST", "/healthz", 405, id="a wrong method"),
        pytest.param("GET", "/readyz", 500, id="an error of our own"),
    ],
)
def test_every_answer_carries_the_security_headers(
    client: TestClient, vitals: FakeVitals, method: str, path: str, status: int
) -> None:
    vitals.next_error = RuntimeError("hush-hush")
    response = client.request(method, path)
    assert response.status_code == status
    assert response.headers["x-content-type-options"] == "nosniff"
    assert response.headers["x-frame-options"] == "DENY"
    assert response.headers["cache-control"] == "no-store"
    assert "frame-ancestors 'none'" in response.headers["content-security-policy"]
    assert "hush-hush" not in response.text


@pytest.mark.parametrize("path", ["/docs", "/redoc", "/openapi.json"])
def test_the_framework_shows_nothing_of_its_own(client: TestClient, path: str) -> None:
    assert client.get(path).status_code == 404


@pytest.mark.timeout(20)
def test_a_real_server_answers_until_it_is_stopped(vitals: FakeVitals) -> None:
    before = set(threading.enumerate())
    with serve(create_app(vitals, CollectorRegistry(), Counter().desk()), "127.0.0.1", 0) as server:
        with urllib.request.urlopen(f"{server.url}/healthz", timeout=5) as answer:
            assert json.load(answer)["status"] == "ok"
            assert answer.headers["server"] is None
            assert answer.headers["x-content-type-options"] == "nosniff"
        vitals.age = None
        with pytest.raises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(f"{server.url}/healthz", timeout=5)
        with caught.value as refusal:
            assert refusal.code == 503
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen(f"{server.url}/healthz", timeout=5)
    server.stop()
    assert set(threading.enumerate()) <= before  # those of other tests may end meanwhile


@pytest.mark.timeout(20)
def test_a_server_that_is_stopped_at_once_lets_the_port_go(vitals: FakeVitals) -> None:
    app = create_app(vitals, CollectorRegistry(), Counter().desk())
    with serve(app, "127.0.0.1", 0) as first:
        pass
    with serve(app, "127.0.0.1", first.port) as second:
        assert second.port == first.port


@pytest.mark.timeout(20)
def test_ipv6(vitals: FakeVitals) -> None:
    with (
        serve(create_app(vitals, CollectorRegistry(), Counter().desk()), "::1", 0) as server,
        urllib.request.urlopen(f"{server.url}/healthz", timeout=5) as answer,
    ):
        assert answer.status == 200
        assert server.url == f"http://[::1]:{server.port}"


def test_a_port_that_is_taken_is_told(vitals: FakeVitals) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(ListenError, match=f"cannot listen on 127.0.0.1 port {port}: Address already in use"):
            serve(create_app(vitals, CollectorRegistry(), Counter().desk()), "127.0.0.1", port)


@pytest.mark.parametrize(
    "host",
    [
        pytest.param("192.0.2.1", id="an address of another machine"),
        pytest.param("no-such-host.invalid", id="a name that nobody has"),
        pytest.param("a..b", id="a name that nobody can have"),
    ],
)
def test_a_host_that_is_not_here_is_told(vitals: FakeVitals, host: str) -> None:
    with pytest.raises(ListenError, match=f"cannot listen on {host} port 0: "):
        serve(create_app(vitals, CollectorRegistry(), Counter().desk()), host, 0)
