"""What is put together, and what differs between a dry run and a live one."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from autoscaler.ledger import MemoryLedger
from autoscaler.model import Outcome
from autoscaler.policy import PrometheusServer
from autoscaler.purchasing import PasswordUnavailable
from autoscaler.sandbox import TEST_CREDENTIALS, ReplayedPrometheus, SandboxCloud
from autoscaler.settings import Settings, load_settings
from autoscaler.wiring import Servers, build, login_password, outside
from tests.build import policy
from tests.fakes import Clock

((KEY_ID, KEY_SECRET),) = TEST_CREDENTIALS.items()
PASSWORD = "Sandbox-0nly!"


def settings(**environ: str) -> Settings:
    keys = {"ALIBABA_CLOUD_ACCESS_KEY_ID": KEY_ID, "ALIBABA_CLOUD_ACCESS_KEY_SECRET": KEY_SECRET}
    return load_settings({**keys, **environ})


# --- the workers' password ---


def test_a_live_policys_workers_get_the_password_it_names() -> None:
    assert login_password(policy(), {"EDGE_LOGIN_PASSWORD": PASSWORD}) == SecretStr(PASSWORD)


def test_a_dry_run_needs_no_password() -> None:
    assert login_password(policy(dry_run=True), {}) == SecretStr("")


@pytest.mark.parametrize(
    ("environ", "says"),
    [
        pytest.param({}, "the workers' login password cannot be read: environment variable", id="not there"),
        pytest.param({"EDGE_LOGIN_PASSWORD": "hush-hush"}, "the workers' login password", id="against the rule"),
    ],
)
def test_a_password_that_cannot_be_used_is_told_of_and_not_told(environ: dict[str, str], says: str) -> None:
    with pytest.raises(PasswordUnavailable) as caught:
        login_password(policy(), environ)
    assert str(caught.value).startswith(says)
    assert "hush-hush" not in f"{caught.value!r} {caught.value.__cause__!r} {caught.value.__context__!r}"


# --- servers ---


@pytest.fixture
def servers() -> Iterator[Servers]:
    made = Servers(settings(), {"TOKEN": "t0ken"}, Clock())
    yield made
    made.close()


FAR = PrometheusServer(url="https://far.example.com")
NEAR = PrometheusServer(url="https://near.example.com")


def test_the_server_of_the_settings_is_always_there(servers: Servers) -> None:
    assert list(servers.named({})) == ["default"]
    assert list(servers.named({"far": FAR})) == ["default", "far"]


def test_a_client_is_kept_while_its_server_stays_the_same(servers: Servers) -> None:
    first = servers.named({"far": FAR, "near": NEAR})
    second = servers.named({"far": FAR, "near": NEAR.model_copy(update={"url": "https://nearer.example.com"})})
    assert (second["default"], second["far"]) == (first["default"], first["far"])
    assert second["near"] is not first["near"]


FORMS: dict[str, dict[str, Any]] = {
    "a token": {"token": {"env": "TOKEN"}},
    "a user": {"username": "ana", "password": {"env": "TOKEN"}},
    "certificates": {"ca": "/etc/ca.pem", "cert": "/etc/c.pem", "key": "/etc/k.pem"},
    "headers": {"headers": {"X-Scope-OrgID": "edge", "Authorization": {"env": "TOKEN"}}},
}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS.keys())
def test_whatever_a_file_may_say_of_a_server_can_be_asked(servers: Servers, form: dict[str, Any]) -> None:
    server = PrometheusServer.model_validate({"url": "https://far.example.com/prefix", **form})
    assert "far" in servers.named({"far": server})


# --- the whole ---


def test_every_process_has_a_name_of_its_own(tmp_path: Path) -> None:
    clock = Clock()
    parts = [build(settings(), {}, clock=clock, ledger=MemoryLedger(clock=clock)) for _ in range(2)]
    assert parts[0].leases.holder != parts[1].leases.holder
    for each in parts:
        each.purchasing.close()
        each.close()


def test_without_a_ledger_given_it_is_the_one_of_the_settings(tmp_path: Path) -> None:
    parts = build(settings(AUTOSCALER_LEDGER=f"sqlite:///{tmp_path}/ledger.db"), {})
    assert parts.ledger.latest() == {}
    assert (tmp_path / "ledger.db").exists()
    parts.purchasing.close()
    parts.close()


def test_explaining_asks_the_real_systems_and_changes_nothing() -> None:
    clock = Clock()
    ledger = MemoryLedger(clock=clock)
    with SandboxCloud(clock=clock) as sandbox, ReplayedPrometheus({}, clock=clock) as prometheus:
        sandbox.add_cluster("C1", workers=2)
        said = settings(AUTOSCALER_CLOUD_ENDPOINT=sandbox.url, AUTOSCALER_PROMETHEUS_URL=prometheus.url)
        systems = outside(said, {}, clock=clock)
        wanting = policy(minimum=5)
        with systems.explaining(ledger, [wanting], {}) as controller:
            evaluation = controller.explain(wanting, clock())
        systems.close()
    assert (evaluation.decision.outcome, evaluation.decision.add) == (Outcome.SCALE_OUT, 3)
    assert sandbox.orders == []
    assert ledger.latest() == {}
