"""``simulate`` over the history of a real Prometheus: totals and means, as the daemon would have read them."""

import json
import os
import re
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.system.prometheus_server import PrometheusServer

pytestmark = pytest.mark.system

MINUTE = timedelta(minutes=1)
TICKS = 2 * 1440
END = datetime.now(UTC).replace(second=0, microsecond=0) - timedelta(hours=1)
START = END - TICKS * MINUTE

POLICY = """\
cluster_id: C1
evaluate_every: 1m
worker:
  worker_instance_type: ens.sn1.tiny
  ens_region_id: cn-beijing-telecom
  worker_image_id: m-1
  ens_internet_charge_type: BandwidthByDay
  worker_period: 1
  worker_system_disk_size: 20
  login_password: {env: PASSWORD}
capacity: {query: max(sim_workers)}
checks:
  - {name: sessions, query: sum(sim_sessions), strategy: per_worker, load_per_worker: 400}
  - name: utilization
    query: avg(sim_utilization)
    over: count(sim_utilization)
    strategy: setpoint
    target: 0.5
limits: {maximum: 40, per_action: 5, budgets: [{workers: 20, per: 24h}]}
"""


@pytest.fixture(scope="module")
def folder(fresh_prometheus: PrometheusServer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four workers at a mean of 0.4; after a day sessions for ten, after a day and a half a mean of 0.8 on eight."""
    instants = [START + tick * MINUTE for tick in range(TICKS)]
    fresh_prometheus.write("sim_workers", [(at, 4) for at in instants])
    fresh_prometheus.write("sim_sessions", [(at, 4000 if tick >= 1440 else 1200) for tick, at in enumerate(instants)])
    for worker in range(8):
        there = [(at, 0.8 if tick >= 2160 else 0.4) for tick, at in enumerate(instants) if worker < 4 or tick >= 2160]
        fresh_prometheus.write("sim_utilization", there, worker=str(worker))
    folder = tmp_path_factory.mktemp("history")
    (folder / "policies").mkdir()
    (folder / "policies" / "edge.yaml").write_text(POLICY)
    return folder


def simulate(folder: Path, url: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    environ = {"PATH": os.environ["PATH"], "AUTOSCALER_PROMETHEUS_URL": url}
    command = [sys.executable, "-c", "from autoscaler.cli import main; main()", "simulate", "edge", *arguments]
    return subprocess.run(command, cwd=folder, env=environ, capture_output=True, text=True, timeout=50)


def test_history_is_simulated_as_it_was_read(folder: Path, fresh_prometheus: PrometheusServer) -> None:
    span = ("--from", START.isoformat(), "--to", END.isoformat())
    done = simulate(folder, fresh_prometheus.url, *span, "--json")
    assert done.returncode == 0, done.stderr
    [found] = json.loads(done.stdout)["simulations"]
    assert found["load"]["evaluations"] == TICKS
    assert (found["ready"], found["ready_source"]) == (4, "as recorded")
    assert found["load"]["assumed"] == [
        '"utilization" is a mean: its load is the mean × the workers of then, as utilization.over says'
    ]
    bought = [(purchase["at"], purchase["asked"]) for purchase in found["purchases"]]
    day = f"{START + 1440 * MINUTE:%Y-%m-%dT%H:%M:%SZ}"
    assert bought[0] == (day, 5)  # sessions for ten, on four
    # 0.8 on eight workers is a load of 6.4, which needs thirteen: three more than there are by then.
    assert sum(asked for _, asked in bought) == 9
    assert bought[-1][0] == f"{START + 2160 * MINUTE:%Y-%m-%dT%H:%M:%SZ}"
    again = simulate(folder, fresh_prometheus.url, *span, "--json")
    assert again.stdout == done.stdout


def test_a_time_before_all_history_is_all_gaps(folder: Path, fresh_prometheus: PrometheusServer) -> None:
    done = simulate(
        folder, fresh_prometheus.url, "--from", "2020-01-01", "--to", "2020-01-01T01:00:00Z", "--ready", "4"
    )
    assert done.returncode == 0, done.stderr
    assert 'gaps of "sessions": no_data 60' in done.stdout
    assert re.search(r"^load short for +never$", done.stdout, re.MULTILINE)


def test_no_progress_is_told_where_nobody_looks(folder: Path, fresh_prometheus: PrometheusServer) -> None:
    done = simulate(
        folder, fresh_prometheus.url, "--from", START.isoformat(), "--to", (START + timedelta(hours=1)).isoformat()
    )
    assert (done.returncode, done.stderr) == (0, "")
