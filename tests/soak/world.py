"""The world of a soak: a sandbox cloud and a Prometheus as processes, clusters whose load grows, a clock that is moved.

Load asks for some workers more as soon as those it asked for carry load, so that something is always to be bought. It
never falls: in the end the workers there are have to be those it asks for, not one more.
"""

import random
import threading
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Self

import httpx
from pydantic import TypeAdapter

from autoscaler.sandbox import Order
from autoscaler.sandbox.wire import Cutoff, LoopbackServer, Reply, Request
from tests.soak.clock import MovedClock
from tests.soak.mischief import TIMEOUT
from tests.system.prometheus_server import PrometheusServer
from tests.system.site import ACCESS_KEY_ID, ACCESS_KEY_SECRET, LOGIN_PASSWORD, Cloud

WORKERS_AT_FIRST = 2
_JOIN_SECONDS = 2
_PER_WORKER = 100
_MOST_MORE = 3  # workers that load asks for at once
_FEED_SECONDS = 0.4
_ORDERS = TypeAdapter(tuple[Order, ...])


class World:
    """Everything around the daemons of one part of a soak."""

    def __init__(self, folder: Path, clusters: int, draw: random.Random) -> None:
        self.folder = folder
        self.clusters: Sequence[str] = [f"C{number:031d}" for number in range(clusters)]
        self.clock = MovedClock(folder / "clock")
        self.wanted = dict.fromkeys(self.clusters, WORKERS_AT_FIRST)
        self._draw = draw
        self._grows = True
        (folder / "policies").mkdir()
        for number, cluster_id in enumerate(self.clusters):
            settle = ("person", "after_quiet_period")[number % 2]
            text = _POLICY.format(cluster=cluster_id, per_worker=_PER_WORKER, settle=settle, per_action=_MOST_MORE)
            (folder / "policies" / f"edge-{number}.yaml").write_text(text, encoding="utf-8")
        self.prometheus = PrometheusServer(folder / "prometheus")
        self._front = _Front(self.prometheus.url, self.clock)
        self.cloud = Cloud(
            ["-m", "autoscaler.sandbox", f"--join-delay={_JOIN_SECONDS}", "--node-quota=100000"], folder / "cloud.log"
        )
        self.pass_time(timedelta(0))
        for cluster_id in self.clusters:
            self.cloud.order("clusters", cluster_id=cluster_id, workers=WORKERS_AT_FIRST)
        self._stop = threading.Event()
        self._feeder = threading.Thread(target=self._feed, name="load", daemon=True)

    def __enter__(self) -> Self:
        self._feeder.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._feeder.join()
        self._front.close()
        self.prometheus.__exit__()
        self.cloud.kill()

    def environment(self, ledger: str) -> dict[str, str]:
        """The settings and secrets of a daemon in this world."""
        return {
            "AUTOSCALER_POLICIES": str(self.folder / "policies"),
            "AUTOSCALER_LEDGER": ledger,
            "AUTOSCALER_LISTEN": "127.0.0.1:0",
            "AUTOSCALER_PROMETHEUS_URL": self._front.url,
            "AUTOSCALER_CLOUD_ENDPOINT": self.cloud.url,
            "AUTOSCALER_CLOUD_TIMEOUT": f"{TIMEOUT:g}s",
            "ALIBABA_CLOUD_ACCESS_KEY_ID": ACCESS_KEY_ID,
            "ALIBABA_CLOUD_ACCESS_KEY_SECRET": ACCESS_KEY_SECRET,
            "EDGE_LOGIN_PASSWORD": LOGIN_PASSWORD,
        }

    def pass_time(self, by: timedelta) -> None:
        """Move everybody's clock. For when no daemon is awake: between the two moves the clocks differ."""
        self.clock.forward(by)
        self.cloud.order("skew", by=self.clock.offset.total_seconds())

    def rest(self) -> None:
        """Let the load stay as it is from now on."""
        self._grows = False

    def ready(self) -> dict[str, int]:
        """The workers that carry load in truth, by cluster."""
        return {cluster_id: shown["ready_workers"] for cluster_id, shown in self.cloud.shows("clusters").items()}

    def orders(self) -> tuple[Order, ...]:
        """Everything the cloud sold, oldest first."""
        return _ORDERS.validate_python(self.cloud.shows("orders"))

    def posts(self) -> list[str | None]:
        """The nonces of all purchases that reached the cloud."""
        return [request["nonce"] for request in self.cloud.shows("requests") if request["method"] == "POST"]

    def _feed(self) -> None:
        while not self._stop.wait(_FEED_SECONDS):
            try:
                for cluster_id, ready in self.ready().items():
                    if self._grows and ready >= self.wanted[cluster_id]:
                        self.wanted[cluster_id] += self._draw.randint(1, _MOST_MORE)
                now = self.clock()
                self.prometheus.write_all(
                    ({"__name__": "live_sessions", "site": cluster_id}, [(now, wanted * _PER_WORKER)])
                    for cluster_id, wanted in self.wanted.items()
                )
            except httpx.HTTPError:  # either is busy: the load goes on unseen
                continue


class _Front:
    """Stands before a Prometheus and tells the soak's time as its own: the daemons compare clocks."""

    def __init__(self, url: str, clock: MovedClock) -> None:
        self._http = httpx.Client(base_url=url, trust_env=False, timeout=10)
        self._clock = clock
        self._server = LoopbackServer(self._answer)
        self._server.start()
        self.url = self._server.url

    def close(self) -> None:
        self._server.close()
        self._http.close()

    def _answer(self, request: Request) -> Reply | Cutoff:
        kept = {name: value for name, value in request.headers if name in ("accept-encoding", "content-type")}
        try:
            found = self._http.request(
                request.method, f"{request.path}?{request.query}", content=request.body, headers=kept
            )
        except httpx.HTTPError:
            return Cutoff()
        return Reply(found.status_code, found.content, found.headers.get("content-type", ""), at=self._clock())


_POLICY = """\
cluster_id: {cluster}
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
  timeout_mins: 1
checks:
  - name: sessions
    query: sum(live_sessions{{site="{cluster}"}})
    strategy: per_worker
    load_per_worker: {per_worker}
limits:
  maximum: 100000
  per_action: {per_action}
  budgets: [{{workers: 100000, per: 24h}}]
cooldown: 1s
warm_up: 0s
provision_timeout: 16m
settle_unknown: {settle}
"""
