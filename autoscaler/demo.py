"""The demo: the real daemon at work for half a minute, against a local edge cloud and a replayed Prometheus.

Only the outside is made up. Policies, decisions, purchases and the ledger are what ``autoscaler run`` has, and stay in
a folder of their own to be looked at afterwards.
"""

import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from shutil import which

import click

from autoscaler.clock import utc_now
from autoscaler.daemon import Daemon
from autoscaler.logs import configure_logging
from autoscaler.model import Outcome, PurchaseState
from autoscaler.sandbox import TEST_CREDENTIALS, DataFault, ReplayedPrometheus, SandboxCloud, recorded_load, replayed
from autoscaler.settings import Settings, load_settings
from autoscaler.wiring import Pace, Parts, build

POLICY_NAME = "edge-demo"
CLUSTER_ID = "c0de000000000000000000000000demo"
MINUTE_TAKES = timedelta(milliseconds=500)
RISE_BEGINS = 38  # minutes into the recording
GAP_AT, GAP_FOR = 0.6, 3  # of the show, and in seconds
PACE = Pace(look_kept_for=timedelta(0), look_interval=timedelta(0), settle_every=timedelta(seconds=1))

POLICY = f"""\
# A policy as in earnest, but for its times: a minute of load passes in half a second.
description: Requests to a site, on the afternoon of a match
cluster_id: {CLUSTER_ID}
dry_run: false
evaluate_every: 1s

worker:
  worker_instance_type: ens.sn1.tiny
  ens_region_id: cn-beijing-telecom
  worker_image_id: m-2QVLO2T8NYgm8CNQVg15gF
  ens_internet_charge_type: BandwidthByDay
  worker_period: 1
  worker_system_disk_size: 20
  login_password: {{env: EDGE_LOGIN_PASSWORD}}
price_per_worker_month: 180
currency: CNY

checks:
  - name: requests
    query: sum(site_requests_per_minute)
    strategy: per_worker
    load_per_worker: 8000

limits:
  minimum: 3
  maximum: 30
  per_action: 5
  budgets: [{{workers: 20, per: 24h}}]

headroom: 10%
stabilization_window: 2s
cooldown: 5s
warm_up: 1s
"""


def show(seconds: int) -> int:
    """Run the demo for about so many seconds; the exit status of the command."""
    folder = Path(tempfile.mkdtemp(prefix="autoscaler-demo-"))
    (folder / "policies").mkdir()
    (folder / "policies" / f"{POLICY_NAME}.yaml").write_text(POLICY, encoding="utf-8")
    load = replayed(recorded_load()[RISE_BEGINS:], start=utc_now(), every=MINUTE_TAKES)
    series = {"site_requests_per_minute": load}
    with (
        (folder / "log").open("w", encoding="utf-8") as log,
        SandboxCloud(join_delay=timedelta(seconds=4)) as cloud,
        ReplayedPrometheus(series) as prometheus,
    ):
        configure_logging("json", "info", stream=log)
        cloud.add_cluster(CLUSTER_ID, workers=3)
        settings, environ = _settings(folder, cloud.url, prometheus.url)
        parts = build(settings, environ, pace=PACE)
        daemon = Daemon(parts)
        _introduce(folder)
        daemon.start(begin=True)
        try:
            told = _Told(parts)
            for second in range(seconds):
                gap = GAP_AT * seconds <= second < GAP_AT * seconds + GAP_FOR
                prometheus.fault = DataFault.EMPTY if gap else None
                time.sleep(1)
                told.second(second + 1, "-" if gap else f"{_now(load):,.0f}", cloud.ready_workers(CLUSTER_ID))
            # What was bought in the last seconds is still joining: wait for it, so that the sums agree.
            for _ in range(8):
                if not any(p.state is PurchaseState.ACCEPTED for p in parts.ledger.purchases()):
                    break
                time.sleep(1)
            summary = list(_summary(parts, len(cloud.orders), cloud.ready_workers(CLUSTER_ID)))
        except KeyboardInterrupt:
            summary = ["stopped"]
        finally:
            daemon.close()
    click.echo("\n" + "\n".join(summary))
    _farewell(folder)
    return 0


class _Told:
    """Tells each second in a line, and each decision's sentence when it is another one."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._sentence = ""

    def second(self, second: int, load: str, ready: int) -> None:
        decision = self._parts.ledger.latest().get(POLICY_NAME)
        supply = decision.supply if decision is not None else None
        serving, in_flight = (supply.serving, supply.in_flight) if supply is not None else ("-", "-")
        wanted = decision.wanted if decision is not None and decision.wanted is not None else "-"
        click.echo(f"{second:>4}s {load:>9} {serving:>8} {in_flight:>10} {wanted:>7}   {'▪' * ready}")
        if decision is not None and decision.sentence != self._sentence:
            self._sentence = decision.sentence
            colour = {Outcome.SCALE_OUT: "green", Outcome.BLOCKED: "yellow", Outcome.HOLD: None}[decision.outcome]
            click.echo(click.style(f"      {decision.sentence}", fg=colour))


def _now(load: Sequence[tuple[float, float]]) -> float:
    now = utc_now().timestamp()
    return next((value for at, value in reversed(load) if at <= now), 0.0)


def _settings(folder: Path, cloud: str, prometheus: str) -> tuple[Settings, dict[str, str]]:
    ((key_id, key_secret),) = TEST_CREDENTIALS.items()
    environ = {
        "AUTOSCALER_POLICIES": str(folder / "policies"),
        "AUTOSCALER_LEDGER": f"sqlite:///{folder / 'ledger.db'}",
        "AUTOSCALER_PROMETHEUS_URL": prometheus,
        "AUTOSCALER_CLOUD_ENDPOINT": cloud,
        "ALIBABA_CLOUD_ACCESS_KEY_ID": key_id,
        "ALIBABA_CLOUD_ACCESS_KEY_SECRET": key_secret,
        "EDGE_LOGIN_PASSWORD": "Sandbox-0nly!",
    }
    return load_settings(environ), environ


def _introduce(folder: Path) -> None:
    click.echo(
        "The real daemon, a local edge cloud that sells and a Prometheus that replays the load of a site in 1998.\n"
        f"A minute of load passes in half a second. Policy: {folder}/policies/{POLICY_NAME}.yaml\n\n"
        " time  requests  serving  in flight  wanted   workers ready in the cloud"
    )


def _summary(parts: Parts, orders: int, ready: int) -> Iterator[str]:
    purchases = parts.ledger.purchases()
    reasons = Counter(stored.decision.reason.value for stored in parts.ledger.decisions(limit=1000))
    asked, arrived = sum(p.asked for p in purchases), sum(p.arrived for p in purchases)
    yield f"Bought {asked} workers in {len(purchases)} purchases; the cloud sold {orders} orders; {arrived} arrived."
    yield f"Ready in the end: {ready}. Decisions that changed something, by reason:"
    yield "  " + ", ".join(f"{reason} {number}" for reason, number in reasons.most_common())


def _farewell(folder: Path) -> None:
    ledger = f"AUTOSCALER_LEDGER=sqlite:///{folder}/ledger.db"
    program = _program()
    click.echo(
        f"\nEverything is in {folder}. Look at it with\n"
        f"  export {ledger}\n"
        f"  {program} decisions {POLICY_NAME}\n"
        f"  {program} purchases list\n"
        f"  {program} explain --decision 1\n"
        f"  {program} check {folder}/policies --print\n"
        f"  unset AUTOSCALER_LEDGER\n"
        f"and at policies/ for what a policy can say."
    )


def _program() -> str:
    """This program as one would type it here: from an environment that is not activated, by its path."""
    path = Path(sys.argv[0])
    if path.name != "autoscaler" or which("autoscaler") == str(path):
        return "autoscaler"
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)
