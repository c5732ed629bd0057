"""Two daemons on one PostgreSQL: an order given at one is obeyed by the other, and bought once."""

from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest

from autoscaler.clock import utc_now
from autoscaler.decision import Decision
from autoscaler.ledger import view_ledger
from tests.system.postgres_server import PostgresServer
from tests.system.site import API_TOKEN, Cloud, Daemon, environment

pytestmark = [pytest.mark.system, pytest.mark.timeout(180)]

POLICY = """\
cluster_id: {name}
dry_run: false
evaluate_every: 1h                # an order is not to wait for that
worker:
  worker_instance_type: ens.sn1.tiny
  ens_region_id: cn-beijing-telecom
  worker_image_id: m-2QVLO2T8NYgm8CNQVg15gF
  ens_internet_charge_type: BandwidthByDay
  worker_period: 1
  worker_system_disk_size: 20
  login_password: {{env: EDGE_LOGIN_PASSWORD}}
limits: {{minimum: 1, maximum: 9, per_action: 5}}
"""
NAMES = ("edge-a", "edge-b")
LEASES_WITHIN = 30  # seconds until two daemons have shared two clusters
OBEYED_WITHIN = 15  # seconds; two, but for a machine that has other things to do


class Pair:
    """A cloud, a database, and two daemons that hold a cluster each."""

    def __init__(self, folder: Path, postgres: PostgresServer) -> None:
        self.url = postgres.url(postgres.create_database())
        (folder / "policies").mkdir()
        for name in NAMES:
            (folder / "policies" / f"{name}.yaml").write_text(POLICY.format(name=name), encoding="utf-8")
        clusters = [f"--cluster={name}=4" for name in NAMES]
        self.cloud = Cloud(["-m", "autoscaler.sandbox", "--join-delay=1", *clusters], folder / "cloud.log")
        environ = environment(folder, cloud=self.cloud.url) | {"AUTOSCALER_LEDGER": self.url}
        self.daemons = [Daemon(folder / f"daemon-{n}.log", environ, "--init") for n in (1, 2)]

    def close(self) -> None:
        for process in (*self.daemons, self.cloud):
            process.kill()

    def shared(self) -> bool:
        """Whether each daemon holds a cluster."""
        with closing(view_ledger(self.url, clock=utc_now)) as ledger:
            return len({lease.holder for lease in ledger.holders()}) == len(NAMES)

    def latest(self) -> dict[str, Decision]:
        with closing(view_ledger(self.url, clock=utc_now)) as ledger:
            return dict(ledger.latest())

    def reasons(self) -> list[str]:
        return [decision.reason.value for _, decision in sorted(self.latest().items())]

    def post(self, daemon: int, path: str, **body: Any) -> Any:
        listening = self.daemons[daemon].events("web.listening")[0]["url"]
        answer = httpx.post(
            f"{listening}/api/v1/{path}",
            json=body,
            headers={"Authorization": f"Bearer {API_TOKEN}", "Idempotency-Key": str(body["reason"])},
            trust_env=False,
            timeout=30,
        )
        assert answer.is_success, answer.text
        return answer.json()


@pytest.fixture
def pair(tmp_path: Path, postgres: PostgresServer) -> Iterator[Pair]:
    made = Pair(tmp_path, postgres)
    yield made
    made.close()


def test_an_order_given_at_one_daemon_is_obeyed_by_the_other_and_bought_once(pair: Pair) -> None:
    first = pair.daemons[0]
    for daemon in pair.daemons:
        daemon.until("it listens", partial(daemon.events, "web.listening"), within=60)
    first.until("each daemon holds a cluster", pair.shared, within=LEASES_WITHIN)

    frozen = pair.post(0, "overrides", kind="freeze", policies=["*"], reason="wrong-bill", **{"for": "1h"})
    assert (frozen["override"]["id"], frozen["override"]["author"]) == (1, "oncall")
    first.until("both hold", lambda: pair.reasons() == ["enough", "enough"], within=OBEYED_WITHIN)
    evaluated = [{decision["policy"] for decision in daemon.decisions()} for daemon in pair.daemons]
    assert sorted(len(names) for names in evaluated) == [1, 1], "each daemon evaluates the cluster it holds"
    assert all("frozen by oncall" in decision.sentence for decision in pair.latest().values())

    pair.post(1, "overrides/1/end", reason="over")
    order = {"kind": "buy", "policies": list(NAMES), "workers": 2, "reason": "derby", "for": "1h"}
    placed = [pair.post(daemon, "overrides", **order) for daemon in (0, 1, 1)]  # one click, sent thrice
    assert {each["override"]["id"] for each in placed} == {2}
    first.until("two are bought for each", lambda: len(pair.cloud.orders()) == 2, within=OBEYED_WITHIN)
    assert sorted((sold["cluster_id"], sold["count"]) for sold in pair.cloud.orders()) == [("edge-a", 2), ("edge-b", 2)]
    pair.post(1, "overrides", kind="cap", policies=["*"], workers=9, reason="another-look", **{"for": "1h"})
    first.until("the order is done", lambda: pair.reasons() == ["enough", "enough"], within=OBEYED_WITHIN)
    assert len(pair.cloud.orders()) == 2
