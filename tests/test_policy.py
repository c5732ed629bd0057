"""Policies as values: what cannot be is refused, what can is written and read without a loss."""

import subprocess
import sys
from collections.abc import Callable
from datetime import timedelta
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr, ValidationError

from autoscaler.policy import Headroom, Policy, PrometheusServer, SecretReference, Setpoint, password_problem

SECRET = "Hello1234!"


def form(**changes: Any) -> dict[str, Any]:
    """A policy in the form of its file; a dotted name reaches into it, ``...`` takes a key away."""
    policy: dict[str, Any] = {
        "name": "edge-beijing",
        "cluster_id": "C1",
        "worker": {
            "worker_instance_type": "ens.sn1.tiny",
            "ens_region_id": "cn-beijing-telecom",
            "worker_image_id": "m-1",
            "ens_internet_charge_type": "BandwidthByDay",
            "worker_period": 1,
            "worker_system_disk_size": 20,
            "login_password": {"env": "EDGE_LOGIN_PASSWORD"},
        },
        "checks": [
            {"name": "load", "strategy": "setpoint", "query": "avg(x)", "target": "0.65"},
            {"name": "sessions", "strategy": "per_worker", "query": "sum(x)", "load_per_worker": 400},
            {"name": "queue", "strategy": "steps", "query": "sum(q)", "steps": [{"at": 1, "add": 1}]},
            {
                "name": "evening",
                "strategy": "schedule",
                "windows": [{"cron": "0 18 * * *", "lasts": "6h", "workers": 12, "timezone": "Asia/Shanghai"}],
            },
        ],
        "limits": {"maximum": 40, "per_action": 5},
    }
    for path, value in changes.items():
        part: Any = policy
        *parents, last = (int(step) if step.isdigit() else step for step in path.split("__"))
        for parent in parents:
            part = part[parent]
        if value is ...:
            del part[last]
        else:
            part[last] = value
    return policy


def make(**changes: Any) -> Policy:
    return Policy.model_validate(form(**changes))


def test_the_defaults_are_those_of_the_contract() -> None:
    policy = make()
    assert policy.dry_run is True
    assert policy.evaluate_every == timedelta(seconds=30)
    assert policy.cooldown == timedelta(minutes=10)
    assert policy.stabilization_window == timedelta(0)
    assert policy.warm_up == timedelta(minutes=3)
    assert policy.replace_after == timedelta(minutes=30)
    assert policy.replace_before == timedelta(hours=1)
    assert policy.provision_timeout == timedelta(minutes=90)
    assert policy.assumed_join == timedelta(minutes=10)
    assert policy.worker.timeout_mins == 60
    assert policy.headroom == Headroom()
    assert policy.limits.minimum == 0
    assert isinstance(policy.checks[0], Setpoint)
    assert policy.checks[0].max_age == timedelta(minutes=2)
    assert policy.checks[0].target == Fraction(13, 20)


def test_provision_timeout_follows_timeout_mins() -> None:
    assert make(worker__timeout_mins=90).provision_timeout == timedelta(minutes=120)


ACCEPTED: dict[str, tuple[dict[str, Any], Callable[[Policy], Any], Any]] = {
    "headroom in percent": ({"headroom": "12.5%"}, lambda p: p.headroom, Headroom(ratio=Fraction(1, 8))),
    "headroom in workers": ({"headroom": 2}, lambda p: p.headroom, Headroom(workers=2)),
    "max_age switched off": ({"checks__0__max_age": "none"}, lambda p: p.checks[0].max_age, None),
    "an unpinned age lets @ through": (
        {"checks__0__max_age": "none", "checks__0__query": "avg(x @ end())"},
        lambda p: p.checks[0].query,
        "avg(x @ end())",
    ),
    "zero without a unit": ({"cooldown": 0}, lambda p: p.cooldown, timedelta(0)),
    "a float becomes its decimal text": (
        {"checks__0__target": 0.1},
        lambda p: p.checks[0].target,
        Fraction(1, 10),
    ),
    "twelve months": ({"worker__worker_period": 12}, lambda p: p.worker.worker_period, 12),
    "provision_timeout at its least": (
        {"provision_timeout": "75m"},
        lambda p: p.provision_timeout,
        timedelta(minutes=75),
    ),
    "a window as long as the period": (
        {"stabilization_window": "30s"},
        lambda p: p.stabilization_window,
        timedelta(seconds=30),
    ),
    "no data disk": ({"worker__worker_data_disk_size": 0}, lambda p: p.worker.worker_data_disk_size, 0),
}


@pytest.mark.parametrize(("changes", "read", "value"), ACCEPTED.values(), ids=ACCEPTED)
def test_accepts(changes: dict[str, Any], read: Callable[[Policy], Any], value: Any) -> None:
    assert read(make(**changes)) == value


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "a name with capitals": ({"name": "Edge"}, "not a policy name"),
    "evaluation more often than each second": ({"evaluate_every": "999ms"}, "too often"),
    "a window shorter than the period": ({"stabilization_window": "29s"}, "shorter than evaluate_every"),
    "a provision_timeout that leaves no margin": ({"provision_timeout": "74m59s"}, "write 1h15m or more"),
    "maximum below minimum": ({"limits__minimum": 41}, "40 is below minimum 41"),
    "per_action of nothing": ({"limits__per_action": 0}, "greater than or equal to 1"),
    "a target of zero": ({"checks__0__target": 0}, "not above 0"),
    "a negative tolerance": ({"checks__0__tolerance": -1}, "below 0"),
    "a load_per_worker below zero": ({"checks__1__load_per_worker": -400}, "not above 0"),
    "a number that is none": ({"checks__0__target": "nan"}, "not a number"),
    "an infinite number": ({"checks__0__target": float("inf")}, "not a number"),
    "a number that would fill the memory": ({"checks__0__target": "1e999999999"}, "not a number"),
    "true for a number": ({"checks__0__target": True}, "not a number"),
    "over beside another strategy": ({"checks__1__over": "count(x)"}, "Extra inputs"),
    "required on a schedule": ({"checks__3__required": True}, "Extra inputs"),
    "@ with a max_age": ({"checks__0__query": "avg(x @ end())"}, "pinned to a time"),
    "@ in over with a max_age": ({"checks__0__over": "count(x @ end())"}, "pinned to a time"),
    "a query that is no PromQL": ({"capacity": {"query": "sum("}}, "is not PromQL"),
    "two checks of one name": ({"checks__1__name": "load"}, "name of two checks"),
    "no steps": ({"checks__2__steps": []}, "at least 1 item"),
    "steps that do not rise": ({"checks__2__steps": [{"at": 2, "add": 1}, {"at": 2, "add": 2}]}, "not above the step"),
    "a step reached by no load": ({"checks__2__steps": [{"at": 0, "add": 1}]}, "not above 0"),
    "a step that adds nothing": ({"checks__2__steps": [{"at": 1}]}, "adds nothing"),
    "a step that adds twice": ({"checks__2__steps": [{"at": 1, "add": 1, "add_percent": 5}]}, "both add and"),
    "a cron of six fields": ({"checks__3__windows__0__cron": "0 0 18 * * *"}, "6 fields"),
    "a cron that never opens": ({"checks__3__windows__0__cron": "0 0 31 2 *"}, "never opens"),
    "a zone that is none": ({"checks__3__windows__0__timezone": "Asia/Shanghia"}, "write Asia/Shanghai"),
    "a zone that is a folder": ({"checks__3__windows__0__timezone": "Asia"}, "not a known time zone"),
    "a zone outside the zones": ({"checks__3__windows__0__timezone": "../../etc/passwd"}, "not a known time zone"),
    "a window of no length": ({"checks__3__windows__0__lasts": "0s"}, "too short"),
    "a negative duration": ({"cooldown": timedelta(seconds=-1)}, "negative"),
    "a duration without a unit": ({"cooldown": 10}, "no unit; write 10s"),
    "headroom below zero": ({"headroom": -1}, "neither workers nor a percentage"),
    "headroom as a ratio": ({"headroom": 0.1}, "neither workers nor a percentage"),
    "a money budget without a price": ({"limits__budgets": [{"money": 1, "per": "1d"}]}, "names no price"),
    "a budget of nothing": ({"limits__budgets": [{"per": "1d"}]}, "neither workers nor money"),
    "a budget of both": ({"limits__budgets": [{"workers": 1, "money": 1, "per": "1d"}]}, "both workers and money"),
    "a budget without a window": ({"limits__budgets": [{"workers": 1}]}, "has no window"),
    "a budget over no time": ({"limits__budgets": [{"workers": 1, "per": "0s"}]}, "too short"),
    "a price of nothing": ({"price_per_worker_month": 0}, "not above 0"),
    "a currency that is none": ({"currency": "yuan"}, "not a currency"),
    "ten months": ({"worker__worker_period": 10}, "10 months are not sold"),
    "no months": ({"worker__worker_period": 0}, "greater than or equal to 1"),
    "a system disk too small": ({"worker__worker_system_disk_size": 10}, "greater than or equal to 20"),
    "a system disk too large": ({"worker__worker_system_disk_size": 110}, "less than or equal to 100"),
    "an odd system disk": ({"worker__worker_system_disk_size": 25}, "multiple of 10"),
    "a data disk too small": ({"worker__worker_data_disk_size": 10}, "10 GiB are not sold"),
    "a data disk too large": ({"worker__worker_data_disk_size": 210}, "less than or equal to 200"),
    "renewal without a period": ({"worker__worker_auto_renew": True}, "worker_auto_renew is true"),
    "renewal for thirteen months": ({"worker__worker_auto_renew_period": 13}, "less than or equal to 12"),
    "another charge type": ({"worker__ens_internet_charge_type": "ByHour"}, "BandwidthByDay"),
    "an id with a space": ({"worker__ens_region_id": "cn beijing"}, "is not an id"),
    "an id that leaves the URL's path": ({"cluster_id": "../../quota"}, "is not an id"),
    "an id with a line break": ({"cluster_id": "C1\n"}, "is not an id"),
    "count, which is ours": ({"worker__count": 1}, "Extra inputs"),
    "is_edge_worker, which is ours": ({"worker__is_edge_worker": True}, "Extra inputs"),
    "a password": ({"worker__login_password": SECRET}, "never the password itself"),
    "a password as a variable's name": ({"worker__login_password": {"env": SECRET}}, "never the password itself"),
    "a password as a key": ({"worker__login_password": {SECRET: None}}, "never the password itself"),
    "a password as a file": ({"worker__login_password": {"file": SECRET}}, "never the password itself"),
    "two places for a password": ({"worker__login_password": {"env": "A", "file": "/b"}}, "never the password"),
    "text for a flag": ({"dry_run": "false"}, "valid boolean"),
    "a float for a count": ({"limits__maximum": 40.0}, "valid integer"),
    "an unknown settlement": ({"settle_unknown": "retry"}, "after_quiet_period"),
}


@pytest.mark.parametrize(("changes", "complaint"), REFUSED.values(), ids=REFUSED)
def test_refuses(changes: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValidationError) as refusal:
        make(**changes)
    assert complaint in str(refusal.value)
    assert SECRET not in str(refusal.value)


def test_a_policy_cannot_be_changed() -> None:
    with pytest.raises(ValidationError):
        make().dry_run = False  # type: ignore[misc]


numbers = st.fractions(min_value=Fraction(1, 10**9), max_value=10**9, max_denominator=10**9)
decimals = st.decimals(min_value="0.000001", max_value=10**12, places=6).map(Fraction)
durations = st.integers(min_value=1000, max_value=10**12).map(lambda n: timedelta(milliseconds=n))


@given(target=numbers, load=decimals, ratio=decimals, period=durations, cooldown=durations, age=st.none() | durations)
def test_what_the_ledger_keeps_is_the_policy(
    target: Fraction, load: Fraction, ratio: Fraction, period: timedelta, cooldown: timedelta, age: timedelta | None
) -> None:
    policy = make(
        checks__0__target=target,
        checks__0__max_age=age,
        checks__1__load_per_worker=load,
        headroom=Headroom(ratio=ratio),
        evaluate_every=period,
        cooldown=cooldown,
    )
    kept = Policy.model_validate_json(policy.model_dump_json())
    assert kept == policy
    assert kept.version == policy.version


def test_exact_numbers_are_kept_as_numbers_where_json_has_them() -> None:
    dumped = make(checks__0__target="0.65", checks__0__tolerance=Fraction(1, 3)).model_dump(mode="json")
    assert (dumped["checks"][0]["target"], dumped["checks"][0]["tolerance"]) == (0.65, "1/3")


def test_the_version_is_the_same_in_every_process() -> None:
    program = "import sys; from autoscaler.policy import Policy; print(Policy.model_validate_json(sys.argv[1]).version)"
    policy = make(labels={"b": "1", "a": "2"})
    versions = {
        subprocess.run(
            [sys.executable, "-c", program, policy.model_dump_json()],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(sys.path)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        for seed in ("1", "2")
    }
    assert versions == {policy.version}
    assert len(policy.version) == 12


def test_the_version_ignores_how_a_thing_is_written() -> None:
    spelled = make(checks__0__target="0.650", cooldown="600s", labels={"a": "1", "b": "2"})
    assert spelled.version == make(cooldown="10m", labels={"b": "2", "a": "1"}).version


CHANGED: dict[str, dict[str, Any]] = {
    "the cluster": {"cluster_id": "C2"},
    "a target": {"checks__0__target": "0.66"},
    "dry_run": {"dry_run": False},
    "the image": {"worker__worker_image_id": "m-2"},
    "the description": {"description": "other"},
}


@pytest.mark.parametrize("changes", CHANGED.values(), ids=CHANGED)
def test_the_version_differs_when_the_policy_does(changes: dict[str, Any]) -> None:
    assert make(**changes).version != make().version


def test_a_copy_has_a_version_of_its_own() -> None:
    policy = make()
    before = policy.version
    assert policy.model_copy(update={"cooldown": timedelta(0)}).version != before


PASSWORDS = {
    "three kinds": ("abcdEF12", None),
    "three kinds with a sign": ("abcd12!!", None),
    "thirty characters": ("aB1" * 10, None),
    "seven characters": ("aB1!xyz", "8 to 30"),
    "thirty-one characters": ("aB1" * 10 + "x", "8 to 30"),
    "two kinds": ("abcdefg1", "fewer than three"),
    "a line break at its end": ("abcdEF12\n", "line break"),
    "letters beyond ASCII": ("abcdEF12é", "other characters"),
    "nothing": ("", "8 to 30"),
}


@pytest.mark.parametrize(("password", "complaint"), PASSWORDS.values(), ids=PASSWORDS)
def test_passwords(password: str, complaint: str | None) -> None:
    problem = password_problem(SecretStr(password))
    if complaint is None:
        assert problem is None
    else:
        assert problem is not None
        assert complaint in problem
        assert password == "" or password not in problem


SERVERS: dict[str, tuple[dict[str, Any], str]] = {
    "a password in the address": ({"url": f"http://me:{SECRET}@host"}, "more than an address"),
    "a token in the query": ({"url": f"http://host/?token={SECRET}"}, "more than an address"),
    "no scheme": ({"url": "prometheus:9090"}, "not an address"),
    "another scheme": ({"url": "file:///etc/passwd"}, "not an address"),
    "a port that is none": ({"url": "http://host:x"}, "not an address"),
    "a token in plain text": ({"token": SECRET}, "never the password itself"),
    "two ways in": ({"token": {"env": "T"}, "username": "me", "password": {"env": "P"}}, "both a token and"),
    "a name without a password": ({"username": "me"}, "only one of username and password"),
    "a certificate without its key": ({"cert": "/c.pem"}, "only one of cert and key"),
    "a secret header in plain text": ({"headers": {"Authorization": SECRET}}, "plain text"),
    "a header that splits the request": ({"headers": {"X-Scope": "a\r\nHost: b"}}, "reference to a secret"),
    "a header's name that is none": ({"headers": {"X Scope": "a"}}, "name that is no header"),
}


@pytest.mark.parametrize(("changes", "complaint"), SERVERS.values(), ids=SERVERS)
def test_refuses_a_server(changes: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValidationError) as refusal:
        PrometheusServer.model_validate({"url": "http://host", **changes})
    assert complaint in str(refusal.value)
    assert SECRET not in str(refusal.value)


def test_a_server_hides_its_headers() -> None:
    server = PrometheusServer.model_validate(
        {"url": "https://host/prefix", "headers": {"X-Scope-OrgID": "team", "X-Key": {"env": "KEY"}}}
    )
    assert server.headers == {"X-Scope-OrgID": "team", "X-Key": SecretReference(env="KEY")}
    assert "team" not in repr(server)
