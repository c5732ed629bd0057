"""One edge site for a test: a cloud that sells to it, workers that carry its load, and the daemon that watches it.

The loop is closed: what the cloud's workers can carry, and how busy that makes them, is written to Prometheus
twice a second, so that every worker bought changes what the daemon reads next.
"""

import json
import threading
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

import httpx

from autoscaler.clock import utc_now
from autoscaler.ledger import view_ledger
from autoscaler.model import Purchase
from autoscaler.purchase import NOTHING_BOUGHT
from autoscaler.sandbox import TEST_CREDENTIALS
from tests.system.processes import Process
from tests.system.prometheus_server import PrometheusServer

POLICY = "edge"
ACCESS_KEY_ID, ACCESS_KEY_SECRET = next(iter(TEST_CREDENTIALS.items()))
LOGIN_PASSWORD = "L0gin-of-a-worker!"
API_TOKEN = "api-token-of-the-person-on-call"
PROMETHEUS_TOKEN = "bearer-token-of-prometheus"
SECRETS = (ACCESS_KEY_SECRET, LOGIN_PASSWORD, API_TOKEN, PROMETHEUS_TOKEN)

WORKERS_AT_FIRST = 4
JOIN_SECONDS = 5
COOLDOWN_SECONDS = 45
PER_WORKER = 400  # sessions a worker should carry
_MOST_PER_WORKER = 625  # sessions that fill a worker; 0.65 of them are just above PER_WORKER
_FEED_SECONDS = 0.5


class Site:
    """A site of its own for one test, in a folder of its own; ``sessions`` is the load on it, and may be set."""

    def __init__(self, folder: Path, prometheus: PrometheusServer) -> None:
        self.folder = folder
        self.cluster_id = folder.name
        self.prometheus = prometheus
        self.sessions = WORKERS_AT_FIRST * PER_WORKER
        self.policy = write_policy(folder, self.cluster_id)
        self._daemons: list[Daemon] = []
        cluster = f"--cluster={self.cluster_id}={WORKERS_AT_FIRST}"
        self.cloud = Cloud(["-m", "autoscaler.sandbox", f"--join-delay={JOIN_SECONDS}", cluster], folder / "cloud.log")
        self._stop = threading.Event()
        self._feeder = threading.Thread(target=self._feed, name=f"feed {self.cluster_id}", daemon=True)

    def __enter__(self) -> Self:
        self._feeder.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._feeder.join()
        for daemon in self._daemons:
            daemon.kill()
        self.cloud.kill()

    def run(self, *options: str, **environ: str) -> "Daemon":
        """Start ``autoscaler run``, killed at the end of the site's context."""
        where = environment(self.folder, cloud=self.cloud.url, prometheus=self.prometheus.url)
        daemon = Daemon(self.folder / f"daemon-{len(self._daemons) + 1}.log", {**where, **environ}, *options)
        self._daemons.append(daemon)
        return daemon

    def command(self, *words: str) -> str:
        """What another command of the program prints, given the daemon's settings; it has to succeed."""
        where = environment(self.folder, cloud=self.cloud.url, prometheus=self.prometheus.url)
        with Process(
            ["-c", "from autoscaler.cli import main; main()", *words], self.folder / "command.log", where
        ) as p:
            assert p.ends(within=30) == 0, p.written()
            return p.written()

    def begin(self) -> "Daemon":
        """A daemon on a new ledger that has found enough workers for the load there is."""
        daemon = self.run("--init")
        daemon.until("a first decision that there are enough workers", lambda: "enough" in daemon.reasons(), within=40)
        return daemon

    def purchases(self) -> tuple[Purchase, ...]:
        """What the ledger says was bought, oldest first."""
        ledger = view_ledger(_ledger(self.folder), clock=utc_now)
        try:
            return ledger.purchases(limit=None)[::-1]
        finally:
            ledger.close()

    def states(self) -> list[str]:
        """The states of all purchases, oldest first."""
        return [purchase.state.value for purchase in self.purchases()]

    def ready(self) -> int:
        """Workers that carry load in truth."""
        ready: int = self.cloud.shows("clusters")[self.cluster_id]["ready_workers"]
        return ready

    def bought_once(self) -> list[int]:
        """How many workers each order brought; fails unless every order is one purchase and the other way round."""
        orders = self.cloud.orders()
        purchases = [purchase for purchase in self.purchases() if purchase.state not in NOTHING_BOUGHT]
        assert len({order["nonce"] for order in orders}) == len(orders)
        assert [(order["nonce"], order["count"]) for order in orders] == [(p.nonce, p.asked) for p in purchases]
        return [order["count"] for order in orders]

    def written(self) -> dict[str, bytes]:
        """Every file that the daemon has written, by name: what it logged, its ledger, the metrics it showed."""
        names = ("daemon-*.log", "ledger.db*", "metrics.txt")
        return {path.name: path.read_bytes() for name in names for path in self.folder.glob(name)}

    def _feed(self) -> None:
        while not self._stop.wait(_FEED_SECONDS):
            try:
                self._write_metrics(self.ready())
            except httpx.HTTPError:  # either of them is down: the load goes on unseen
                continue

    def _write_metrics(self, ready: int) -> None:
        now, site = datetime.now(UTC), {"site": self.cluster_id}
        series: list[tuple[dict[str, str], float]] = [
            ({"__name__": "live_sessions", **site}, self.sessions),
            ({"__name__": "edge_workers_ready", **site}, ready),
        ]
        busy = self.sessions / (ready * _MOST_PER_WORKER) if ready else 0
        series += [({"__name__": "edge_utilization", "worker": str(n), **site}, busy) for n in range(ready)]
        self.prometheus.write_all((labels, [(now, value)]) for labels, value in series)


class Cloud(Process):
    """The sandbox cloud as a process, steered over HTTP."""

    def __init__(self, arguments: Sequence[str], log: Path) -> None:
        super().__init__(arguments, log)
        self.url = self.until("the sandbox's URL", lambda: self.written().partition("\n")[0].strip(), within=30)
        self._http = httpx.Client(base_url=f"{self.url}/_sandbox/", trust_env=False, timeout=10)

    def shows(self, what: str) -> Any:
        """What a path below /_sandbox/ shows."""
        return self._http.get(what).raise_for_status().json()

    def orders(self) -> list[dict[str, Any]]:
        """Everything it sold, oldest first."""
        orders: list[dict[str, Any]] = self.shows("orders")
        return orders

    def order(self, command: str, **arguments: object) -> None:
        """Steer it: a path below /_sandbox/ and its arguments."""
        answer = self._http.post(command, json=arguments)
        assert answer.is_success, answer.text

    def kill(self) -> None:
        """End it; what it sold is forgotten."""
        super().kill()
        self._http.close()


class Daemon(Process):
    """``autoscaler run`` as a process."""

    def __init__(self, log: Path, environ: Mapping[str, str], *options: str) -> None:
        super().__init__(["-c", "from autoscaler.cli import main; main()", "run", *options], log, environ)
        self._metrics = log.with_name("metrics.txt")

    def events(self, event: str) -> list[dict[str, Any]]:
        """The lines of its log with this event, oldest first."""
        lines = self.written().splitlines(keepends=True)
        entries = [json.loads(line) for line in lines if line.startswith("{") and line.endswith("}\n")]
        return [entry for entry in entries if entry["event"] == event]

    def decisions(self) -> list[dict[str, Any]]:
        """A line for each evaluation."""
        return self.events("policy.evaluated")

    def reasons(self) -> list[str]:
        """The reason of each evaluation's decision."""
        return [decision["reason"] for decision in self.decisions()]

    def evaluates(self, times: int, *, within: float) -> list[dict[str, Any]]:
        """Its next decisions, so many of them."""
        before = len(self.decisions())
        self.until(f"{times} more evaluations", lambda: len(self.decisions()) >= before + times, within=within)
        return self.decisions()[before:]

    def get(self, path: str) -> httpx.Response:
        """What it answers over HTTP."""
        listening = self.until("where it listens", lambda: self.events("web.listening"), within=30)
        return httpx.get(listening[0]["url"] + path, trust_env=False, timeout=10)

    def answers(self, path: str, status: int) -> Callable[[], bool]:
        """Whether it answers a path with this status, for ``until``."""
        return lambda: self.get(path).status_code == status

    def metrics(self) -> str:
        """What a scrape of it gets; kept in a file beside its log."""
        text = self.get("/metrics").raise_for_status().text
        with self._metrics.open("a", encoding="utf-8") as file:
            file.write(text)
        return text


def environment(
    folder: Path, *, cloud: str = "http://127.0.0.1:9", prometheus: str = "http://127.0.0.1:9"
) -> dict[str, str]:
    """The settings and secrets of a daemon at work in ``folder``."""
    return {
        "AUTOSCALER_POLICIES": str(folder / "policies"),
        "AUTOSCALER_LEDGER": _ledger(folder),
        "AUTOSCALER_LISTEN": "127.0.0.1:0",
        "AUTOSCALER_PROMETHEUS_URL": prometheus,
        "AUTOSCALER_PROMETHEUS_TOKEN": PROMETHEUS_TOKEN,
        "AUTOSCALER_CLOUD_ENDPOINT": cloud,
        "AUTOSCALER_API_TOKENS": f"oncall={API_TOKEN}",
        "AUTOSCALER_LOG_LEVEL": "debug",  # a line for each evaluation
        "ALIBABA_CLOUD_ACCESS_KEY_ID": ACCESS_KEY_ID,
        "ALIBABA_CLOUD_ACCESS_KEY_SECRET": ACCESS_KEY_SECRET,
        "EDGE_LOGIN_PASSWORD": LOGIN_PASSWORD,
    }


def write_policy(folder: Path, cluster_id: str, *, maximum: int = 30, counted: bool = True) -> Path:
    """Write the policy of a daemon at work in ``folder``; ``counted`` False: its workers are those of the node list."""
    text = _POLICY.format(cluster=cluster_id, cooldown=COOLDOWN_SECONDS, maximum=maximum)
    if counted:
        text += _CAPACITY.format(cluster=cluster_id)
    path = folder / "policies" / f"{POLICY}.yaml"
    path.parent.mkdir(exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def _ledger(folder: Path) -> str:
    return f"sqlite:///{folder / 'ledger.db'}"


_POLICY = """\
cluster_id: {cluster}
dry_run: false
evaluate_every: 2s
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
  - name: utilization
    query: avg(edge_utilization{{site="{cluster}"}})
    over: count(edge_utilization{{site="{cluster}"}})
    strategy: setpoint
    target: 0.65
    tolerance: 0.1
  - name: sessions
    query: sum(live_sessions{{site="{cluster}"}})
    strategy: per_worker
    load_per_worker: 400
limits:
  minimum: 2
  maximum: {maximum}
  per_action: 5
  budgets: [{{workers: 20, per: 24h}}]
stabilization_window: 4s
cooldown: {cooldown}s
warm_up: 1s
"""

_CAPACITY = """\
capacity:
  query: sum(edge_workers_ready{{site="{cluster}"}})
"""
