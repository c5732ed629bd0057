"""The daemon with its real scheduler, over a local edge cloud: it begins, reloads, stops, and survives what fails."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import time_machine
from structlog.testing import capture_logs

from autoscaler.clock import utc_now
from autoscaler.daemon import Daemon, EmptyLedger, NoPolicies
from autoscaler.facts import Reason
from autoscaler.leases import LEASE
from autoscaler.ledger import LedgerUnavailable, MarkName, MemoryLedger
from autoscaler.model import Override, OverrideKind, PurchaseState
from autoscaler.sandbox import TEST_CREDENTIALS, Late, ReplayedPrometheus, SandboxCloud
from autoscaler.settings import load_settings
from autoscaler.wiring import Pace, Parts, build
from tests.build import purchase
from tests.fakes import FlakyLedger, until

QUICK = Pace(look_kept_for=timedelta(0), look_interval=timedelta(0), settle_every=timedelta(seconds=0.2))
LOST = LedgerUnavailable("the ledger cannot be used: disk I/O error", "see that the database answers")
((KEY_ID, KEY_SECRET),) = TEST_CREDENTIALS.items()
POLICY = """\
cluster_id: {cluster}
dry_run: {dry_run}
evaluate_every: {every}
worker:
  worker_instance_type: ens.sn1.tiny
  ens_region_id: cn-beijing-telecom
  worker_image_id: m-2QVLO2T8NYgm8CNQVg15gF
  ens_internet_charge_type: BandwidthByDay
  worker_period: 1
  worker_system_disk_size: 20
  login_password: {{env: EDGE_LOGIN_PASSWORD}}
checks: [{{name: sessions, query: sum(live_sessions), strategy: per_worker, load_per_worker: 400}}]
limits: {{minimum: {minimum}, maximum: 9, per_action: 5, budgets: [{{workers: 10, per: 24h}}]}}
"""
Log = list[Any]


class House:
    """A daemon, its folder of policies, and the outside."""

    def __init__(self, folder: Path, sandbox: SandboxCloud, prometheus: ReplayedPrometheus) -> None:
        self.folder = folder
        self.sandbox = sandbox
        self.memory = MemoryLedger(clock=utc_now)
        self.ledger: Any = FlakyLedger(self.memory)
        self.environ = {
            "AUTOSCALER_POLICIES": str(folder),
            "AUTOSCALER_PROMETHEUS_URL": prometheus.url,
            "AUTOSCALER_CLOUD_ENDPOINT": sandbox.url,
            "ALIBABA_CLOUD_ACCESS_KEY_ID": KEY_ID,
            "ALIBABA_CLOUD_ACCESS_KEY_SECRET": KEY_SECRET,
            "EDGE_LOGIN_PASSWORD": "Sandbox-0nly!",
        }
        self.started = False
        self.make()

    def make(self) -> None:
        self.parts: Parts = build(load_settings(self.environ), self.environ, pace=QUICK, ledger=self.ledger)
        self.daemon = Daemon(self.parts)

    def policy(
        self, name: str = "edge", *, cluster: str = "C1", minimum: int = 0, every: str = "1s", dry_run: str = "true"
    ) -> None:
        text = POLICY.format(cluster=cluster, minimum=minimum, every=every, dry_run=dry_run)
        (self.folder / f"{name}.yaml").write_text(text, encoding="utf-8")

    def start(self, *, begin: bool = True) -> None:
        self.daemon.start(begin=begin)
        self.started = True

    def first_round(self) -> None:
        until(lambda: self.daemon.unevaluated() == 0)

    def jobs(self) -> dict[str, datetime]:
        return {job.id: job.next_run_time for job in self.daemon._scheduler.get_jobs()}

    def close(self) -> None:
        if self.started:
            self.started = False
            self.daemon.close()


@pytest.fixture(autouse=True)
def logs() -> Iterator[Log]:
    with capture_logs() as captured:
        yield captured


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    with SandboxCloud() as sandbox, ReplayedPrometheus({}) as prometheus:
        sandbox.add_cluster("C1", workers=2)
        sandbox.add_cluster("C2", workers=2)
        made = House(tmp_path, sandbox, prometheus)
        yield made
        made.close()


def events(logs: Log, event: str) -> Log:
    return [entry for entry in logs if entry["event"] == event]


# --- it begins ---


def test_every_policy_is_evaluated_in_the_first_round(house: House) -> None:
    for n in range(5):
        house.policy(f"edge-{n}", cluster="C1" if n == 0 else f"gone-{n}")
    house.start()
    assert (house.daemon.policies(), house.daemon.unevaluated()) == (5, 5)
    assert house.parts.leases.held() == {"C1", "gone-1", "gone-2", "gone-3", "gone-4"}
    house.first_round()
    assert set(house.memory.latest()) == {f"edge-{n}" for n in range(5)}


def test_policies_of_one_slot_are_one_job(house: House) -> None:
    for n in range(20):
        house.policy(f"edge-{n}", cluster=f"C{n}")
    house.start()
    slots = [name for name in house.jobs() if name not in {"heartbeat", "leases", "orders", "settle", "prune"}]
    assert sorted(slots) == ["1s+0", "1s+1", "1s+2", "1s+3"]


def test_a_live_policy_is_bought_for_and_its_purchase_settled(house: House) -> None:
    house.policy(minimum=4, dry_run="false")
    house.start()
    until(lambda: house.memory.purchases())
    until(lambda: house.memory.purchases()[0].state is PurchaseState.ACCEPTED)
    until(lambda: house.memory.purchases()[0].arrived == 2)  # listed; the sandbox's workers join later
    assert [order.nonce for order in house.sandbox.orders] == [house.memory.purchases()[0].nonce]


def test_a_dry_run_imagines_and_the_cloud_hears_of_nothing(house: House) -> None:
    house.policy(minimum=4)
    house.start()
    until(lambda: [p.imagined for p in house.memory.purchases(states={PurchaseState.ACCEPTED})])
    assert house.sandbox.orders == []


def test_the_heartbeat_tells_of_the_scheduler(house: House) -> None:
    house.policy()
    assert house.daemon.heartbeat_age() is None
    house.start()
    age = house.daemon.heartbeat_age()
    assert age is not None
    assert age < timedelta(seconds=5)
    assert house.daemon.pools() == {"evaluate": True}


def test_an_empty_ledger_and_a_live_policy_need_a_word(house: House) -> None:
    house.policy(name="live", dry_run="false")
    with pytest.raises(EmptyLedger, match=r"nothing was ever bought .* and live is live.*autoscaler run --init"):
        house.start(begin=False)


def test_what_dry_runs_recorded_is_not_that_word(house: House) -> None:
    house.policy(minimum=4)
    house.start(begin=False)
    until(lambda: house.memory.purchases())
    house.policy(minimum=4, dry_run="false")
    house.daemon._load_again()  # the policies in force stay
    house.daemon._renew()
    assert (house.daemon.ledger_problem(), house.parts.live(), house.sandbox.orders) == (None, (), [])
    at = house.memory.latest()["edge"].at
    until(lambda: house.memory.latest()["edge"].at > at)  # the dry run goes on
    house.close()
    house.make()
    with pytest.raises(EmptyLedger, match=r"or only dry runs used it.*--init"):
        house.start(begin=False)
    house.start(begin=True)
    until(lambda: house.sandbox.orders)


def test_a_ledger_begun_anew_beneath_a_living_daemon_is_not_gone_on_with(house: House, logs: Log) -> None:
    house.policy(dry_run="false")
    house.start(begin=True)
    house.first_round()
    house.ledger._ledger = MemoryLedger(clock=utc_now)  # emptied, and another daemon made its tables
    house.policy(minimum=4, dry_run="false")
    house.daemon._load_again()
    until(lambda: events(logs, "leases.failed"))
    assert "nothing was ever bought by this ledger, and edge is live" in (house.daemon.ledger_problem() or "")
    time.sleep(2.5)  # the lease that it still remembers is not of this ledger: nothing is sent
    assert house.sandbox.orders == []
    assert not house.ledger._ledger.in_use()


def test_a_ledger_that_is_begun_by_a_persons_word_is_marked(house: House) -> None:
    house.policy(dry_run="false")
    house.start(begin=True)
    house.daemon._load()  # its word stands, also before anything is recorded
    assert [mark.name for mark in house.memory.marks()] == [MarkName.BEGUN]


@pytest.mark.parametrize("dry_run", ["true", "false"])
def test_one_that_is_not_begun_by_it_is_not(house: House, dry_run: str) -> None:
    if dry_run == "false":
        keep(house, "fulfilled", "C1")
    house.policy(dry_run=dry_run)
    house.start(begin=True)
    assert house.memory.marks() == ()


def test_a_copy_is_restored_by_being_worked_on_and_that_is_told_of_once(house: House, logs: Log) -> None:
    house.memory.mark(MarkName.BACKUP, utc_now() - timedelta(days=1), "autoscaler ledger backup")
    house.policy(minimum=4, dry_run="false")
    keep(house, "fulfilled", "C2")
    house.start(begin=False)
    house.daemon._renew()
    assert [mark.name for mark in house.memory.marks()] == [MarkName.BACKUP, MarkName.RESTORED]
    assert len(events(logs, "ledger.restored")) == 1
    house.first_round()
    assert house.memory.latest()["edge"].reason is Reason.RESTORED
    assert house.sandbox.orders == []


def test_an_empty_ledger_is_nothing_to_a_dry_run(house: House) -> None:
    house.policy(dry_run="true")
    house.start(begin=False)


def test_the_setting_makes_a_live_policy_a_dry_run(house: House) -> None:
    house.policy(dry_run="false", minimum=4)
    house.environ["AUTOSCALER_DRY_RUN"] = "true"
    house.make()
    house.start(begin=False)
    until(lambda: house.memory.purchases())
    assert house.memory.purchases()[0].imagined


def test_without_a_policy_that_can_be_used_it_does_not_begin(house: House) -> None:
    (house.folder / "edge.yaml").write_text("cluster_id: [\n", encoding="utf-8")
    with pytest.raises(NoPolicies, match=r"edge\.yaml"):
        house.start()


def test_a_purchase_that_nobody_knows_of_is_told_of_at_the_start(house: House, logs: Log) -> None:
    keep(house, "unknown", "C1")
    house.policy()
    house.start()
    assert [entry["purchase"] for entry in events(logs, "purchase.unknown")] == [1]


def keep(house: House, state: str, cluster: str) -> None:
    """Put a purchase into the ledger."""
    made = purchase(1, state, cluster_id=cluster, sent_at=utc_now(), signed_at=utc_now())
    house.memory._purchases[1] = replace(made, policy="former")


def test_clusters_without_a_policy_are_held_while_something_bought_there_is_open(house: House) -> None:
    house.policy(cluster="C2")
    keep(house, "accepted", "C1")
    house.start()
    assert house.parts.leases.held() == {"C1", "C2"}


def test_what_another_replica_holds_is_not_evaluated_here(house: House) -> None:
    house.policy()
    house.memory.lease("another", ["C1"], LEASE)
    house.policy("mine", cluster="C2")
    house.start()
    assert house.daemon.unevaluated() <= 1
    house.first_round()
    assert set(house.memory.latest()) == {"mine"}


def test_a_clock_set_back_keeps_no_job_waiting(house: House) -> None:
    house.policy(every="30s")
    house.start()
    house.daemon._keep_due()
    before = house.jobs()
    for job in house.daemon._scheduler.get_jobs():  # as they stand when the clock was set back by an hour
        job.modify(next_run_time=job.next_run_time + timedelta(hours=1))
    house.daemon._keep_due()
    frequent = {"settle", "orders"}  # they run meanwhile
    assert {name: due for name, due in house.jobs().items() if name not in frequent} == {
        name: due for name, due in before.items() if name not in frequent
    }


def test_a_daemon_whose_clock_is_set_back_by_an_hour_goes_on_at_once(house: House) -> None:
    house.policy()
    house.start()
    house.first_round()
    before = house.memory.latest()["edge"].at
    with time_machine.travel(before - timedelta(hours=1), tick=True):
        house.daemon._keep_due()
        until(lambda: house.memory.latest()["edge"].at < before - timedelta(minutes=59))
        house.close()


# --- people give orders ---


def order(house: House, kind: OverrideKind = OverrideKind.FREEZE, name: str = "edge") -> Override:
    """Order as another process would: straight into the ledger."""
    now = utc_now()
    return house.memory.add_override(kind, [name], None, "ana", "derby", now, now + timedelta(hours=1))


def evaluated(house: House, name: str = "edge") -> datetime:
    return house.memory.latest()[name].at


def test_an_order_is_obeyed_within_two_seconds_and_so_is_its_end(house: House) -> None:
    house.policy(minimum=4, every="1h", dry_run="false")
    house.policy("far", cluster="C2", every="1h")
    frozen = order(house)
    house.start()
    until(lambda: "edge" in house.memory.latest(), seconds=2)  # an hour before its turn
    assert house.memory.latest()["edge"].reason is Reason.FREEZE
    assert "far" not in house.memory.latest()
    house.memory.end_override(frozen.id, "ana", "over", utc_now())
    until(lambda: house.memory.purchases(), seconds=2)
    before = evaluated(house)
    order(house, name="e*")
    until(lambda: evaluated(house) > before, seconds=2)


def test_an_order_for_what_another_replica_holds_is_left_to_it(house: House, logs: Log) -> None:
    house.policy(every="1h")
    house.memory.lease("another", ["C1"], LEASE)
    house.start()
    order(house)
    until(lambda: events(logs, "orders.changed"))
    house.daemon._woken.shutdown()
    assert house.memory.latest() == {}


def test_orders_that_cannot_be_read_are_told_of_once(house: House, logs: Log) -> None:
    house.policy(every="1h")
    house.start()
    order(house)
    until(lambda: house.memory.latest())
    house.ledger.fail("overrides", LOST, times=3)
    for _ in range(3):
        house.daemon._watch_orders()
    assert len(events(logs, "orders.unread")) == 1
    before = evaluated(house)
    house.daemon._watch_orders()
    house.daemon._woken.shutdown()
    assert evaluated(house) == before, "what was in force is in force still"


# --- it reloads ---


def test_a_reload_touches_only_what_changed(house: House) -> None:
    house.policy("edge", every="1h")
    house.policy("far", cluster="C2", every="2h")
    house.start()
    before = house.jobs()
    house.policy("edge", every="1h", minimum=2)
    (house.folder / "far.yaml").unlink()
    house.policy("new", cluster="C3", every="3h")
    house.daemon._load_again()
    after = house.jobs()
    (edge,) = (name for name in before if name.startswith("3600s"))
    assert after[edge] == before[edge]
    assert {name.split("+")[0] for name in after.keys() - before.keys()} == {"10800s"}
    assert {name.split("+")[0] for name in before.keys() - after.keys()} == {"7200s"}
    assert house.parts.leases.held() == {"C1", "C3"}
    assert (house.daemon.policies(), house.daemon.unevaluated()) == (2, 2)


def test_a_policy_that_is_gone_is_shown_no_longer(house: House) -> None:
    house.policy()
    house.start()
    house.first_round()
    shown = {"policy": "edge", "outcome": "hold", "dry_run": "true"}
    assert house.parts.registry.get_sample_value("autoscaler_outcome", shown) == 1
    (house.folder / "edge.yaml").unlink()
    house.daemon._load_again()
    assert house.parts.registry.get_sample_value("autoscaler_outcome", shown) is None


def test_a_reload_begins_no_empty_ledger_for_a_live_policy(house: House, logs: Log) -> None:
    house.start(begin=False)  # its folder is empty, and so is the ledger
    house.policy(dry_run="false")
    house.daemon._load_again()
    assert len(events(logs, "reload.failed")) == 1
    assert house.jobs().keys() == {"heartbeat", "leases", "orders", "settle", "prune"}
    house.policy("tried", cluster="C2")
    (house.folder / "edge.yaml").unlink()
    house.daemon._load_again()
    house.first_round()
    assert house.daemon.policies() == 1


def test_a_reload_that_fails_leaves_what_is_in_force(house: House, logs: Log) -> None:
    house.policy()
    house.start()
    house.parts.catalog._folder = None  # type: ignore[assignment]  # whatever keeps it from being read
    house.daemon._load_again()
    assert events(logs, "reload.failed")
    assert house.daemon.policies() == 1


# --- what fails ---


def test_an_evaluation_that_fails_is_tried_again_at_its_next_time(house: House, logs: Log) -> None:
    house.policy()
    house.ledger.fail("histories", LOST)
    house.start()
    until(lambda: events(logs, "evaluations.failed"))
    assert house.daemon.unevaluated() == 1
    house.first_round()


def test_jobs_that_raise_do_not_stop_the_scheduler(house: House, logs: Log) -> None:
    house.policy()
    house.start()
    house.ledger.fail("unsettled", LOST, times=2)
    until(lambda: len(events(logs, "settling.failed")) == 2)
    house.ledger.fail("unsettled", LOST)
    house.daemon._renew()
    house.ledger.fail("prune", LOST)
    house.daemon._prune()
    assert events(logs, "leases.failed")
    assert events(logs, "pruning.failed")
    house.first_round()


def test_a_ledger_that_does_not_answer_is_told_of(house: House) -> None:
    assert house.daemon.ledger_problem() is None
    house.ledger.fail("in_use", LOST)
    assert house.daemon.ledger_problem() == str(LOST)


@pytest.mark.parametrize(
    ("method", "job"), [("take_up", "_renew"), ("unsettled", "_settle")], ids=["leases", "settling"]
)
def test_a_job_that_failed_for_the_ledger_is_told_of_until_it_succeeds(house: House, method: str, job: str) -> None:
    house.policy()
    house.daemon._load()
    run = getattr(house.daemon, job)
    house.ledger.fail(method, LOST)
    run()
    assert house.daemon.ledger_problem() == str(LOST)
    run()
    assert house.daemon.ledger_problem() is None


def test_so_is_an_evaluation_until_its_slot_is_gone(house: House) -> None:
    house.policy()
    house.daemon._load()
    house.daemon._renew()
    (slot,) = house.daemon._slots
    house.ledger.fail("histories", LOST)
    house.daemon._evaluate(slot)
    assert house.daemon.ledger_problem() == str(LOST)
    (house.folder / "edge.yaml").unlink()
    house.daemon._load()
    assert house.daemon.ledger_problem() is None


def test_a_cluster_that_is_lost_is_shown_no_longer(house: House) -> None:
    house.policy()
    house.start()
    house.first_round()
    house.parts.leases._held = frozenset()
    house.memory.release(house.parts.leases.holder)
    house.memory.lease("another", ["C1"], LEASE)
    house.daemon._renew()
    assert house.parts.registry.get_sample_value("autoscaler_workers_ready", {"policy": "edge"}) is None


# --- it stops ---


def test_stopping_waits_for_a_purchase_being_sent_and_records_it(house: House) -> None:
    house.policy(minimum=4, dry_run="false")
    house.sandbox.fail_next(Late(timedelta(seconds=0.7)))
    house.start()
    until(lambda: house.memory.purchases(states={PurchaseState.SENDING}))
    with ThreadPoolExecutor(1) as other:
        closing = other.submit(house.close)
        until(lambda: house.daemon._stopping.is_set())
        assert house.memory.holders(), "no other replica may take it for abandoned"
        closing.result()
    (bought,) = house.memory.purchases()
    assert bought.state is PurchaseState.ACCEPTED
    assert house.memory.holders() == ()


@pytest.mark.parametrize("action", [None, "DescribeClusterDetail"], ids=["at rest", "while the cloud hangs"])
def test_stopping_is_at_once_when_nothing_is_being_sent(house: House, action: str | None) -> None:
    if action is not None:
        house.sandbox.fail_always(Late(timedelta(seconds=30)), action=action)
    house.policy()
    house.start()
    until(lambda: house.sandbox.requests)
    begun = time.monotonic()
    house.close()
    assert time.monotonic() - begun < 1
    assert house.memory.holders() == ()


# --- as a process ---


class Mute:
    """A host that takes connections and never answers."""

    def __init__(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.listener.settimeout(10)
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}"


RUN = "from autoscaler.cli import main; main()"
# Once a line comes in and the main thread waits, another thread sends SIGTERM to itself.
HEARD_BY_ANOTHER_THREAD = f"""
import signal, sys, threading, time
def get():
    sys.stdin.readline()
    while sys._current_frames()[threading.main_thread().ident].f_code.co_name != "wait":
        time.sleep(0.1)
    time.sleep(0.5)
    signal.pthread_kill(threading.get_ident(), signal.SIGTERM)
threading.Thread(target=get, daemon=True).start()
{RUN}
"""


@contextmanager
def process(house: House, tmp_path: Path, script: str = RUN, **environ: str) -> Iterator["subprocess.Popen[str]"]:
    own = {
        "AUTOSCALER_LEDGER": f"sqlite:///{tmp_path}/ledger.db",
        "AUTOSCALER_LISTEN": "127.0.0.1:0",
        "AUTOSCALER_LOG_FORMAT": "json",
        "AUTOSCALER_PROMETHEUS_TIMEOUT": "20s",
    }
    with subprocess.Popen(
        [sys.executable, "-c", script, "run"],
        env={**os.environ, **house.environ, **own, **environ},
        stdin=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdout=subprocess.PIPE,
        text=True,
    ) as running:
        try:
            yield running
        finally:
            running.kill()


def told(running: "subprocess.Popen[str]", event: str) -> str:
    """The first line that tells of an event."""
    assert running.stdout is not None
    said = ""
    for line in running.stdout:
        said += line
        if f'"{event}"' in line:
            return line
    raise AssertionError(said)


def test_a_process_reloads_at_sighup_and_ends_with_0_at_sigterm(house: House, tmp_path: Path) -> None:
    house.policy()
    with process(house, tmp_path) as running:
        told(running, "daemon.started")
        house.policy("second", cluster="C2")
        running.send_signal(signal.SIGHUP)
        assert '"policies": 2' in told(running, "policies.loaded")
        running.send_signal(signal.SIGTERM)
        rest, _ = running.communicate(timeout=10)
    assert (running.returncode, "daemon.stopped" in rest) == (0, True)


def test_a_process_ends_too_when_another_thread_gets_the_signal(house: House, tmp_path: Path) -> None:
    """As when it comes just before the main thread begins to wait: Python then runs no handler until it wakes."""
    house.policy()
    with process(house, tmp_path, HEARD_BY_ANOTHER_THREAD) as running:
        told(running, "daemon.started")
        rest, _ = running.communicate("now\n", timeout=20)
    assert (running.returncode, "daemon.stopped" in rest) == (0, True)


def test_a_process_ends_at_once_while_everything_it_asks_is_mute(house: House, tmp_path: Path) -> None:
    house.policy()
    prometheus, cloud = Mute(), Mute()
    urls = {"AUTOSCALER_PROMETHEUS_URL": prometheus.url, "AUTOSCALER_CLOUD_ENDPOINT": cloud.url}
    with process(house, tmp_path, **urls) as running:
        told(running, "daemon.started")
        asked = [mute.listener.accept() for mute in (prometheus, cloud)]
        begun = time.monotonic()
        running.send_signal(signal.SIGTERM)
        running.communicate(timeout=30)
    assert (running.returncode, len(asked)) == (0, 2)
    assert time.monotonic() - begun < 5  # and not the 20 s that Prometheus has, nor the cloud's 60 s
