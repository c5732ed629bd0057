"""A local edge cloud: signed requests in over HTTP, workers that join after a while out, and every sale written down.

It stands for the outside, so it trusts nothing of the product: the signature is verified from the wire, the body field
by field, and ``orders`` says what was really sold, whatever the buyer was told. It listens on loopback only and knows
only the access keys it is given.
"""

import threading
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Self

from autoscaler.clock import Clock, utc_now
from autoscaler.sandbox.faults import HONEST, Fate, Fault, Listing
from autoscaler.sandbox.gateway import Gateway, LoggedRequest
from autoscaler.sandbox.order_form import OrderForm
from autoscaler.sandbox.signature import Verifier
from autoscaler.sandbox.wire import Cutoff, LoopbackServer, Reply, Request
from autoscaler.sandbox.world import Delay, Order, World

TEST_CREDENTIALS: Mapping[str, str] = {"LTAI5tTESTACCESSKEYID00": "TestSecretKey0123456789abcdefXY"}
CONTROL = "_sandbox"  # first segment of the paths that steer the sandbox itself

Control = Callable[[Request], Reply]


class SandboxCloud:
    """An edge cloud on loopback.

    ``clock`` gives the time its world lives in and may jump. ``join_delay`` is the time from a sale to a ready worker,
    or a function asked once for each worker; ``list_delay`` the time until the node list shows it. Real time passes
    only where an answer is late. ``skew`` is added to the clock for all the cloud does, its Date header too.
    """

    def __init__(
        self,
        *,
        clock: Clock = utc_now,
        credentials: Mapping[str, str] = TEST_CREDENTIALS,
        security_tokens: Mapping[str, str] | None = None,
        join_delay: Delay = timedelta(minutes=10),
        list_delay: timedelta = timedelta(0),
        node_quota: int = 100,
        port: int = 0,
    ) -> None:
        self.skew = timedelta(0)
        self._clock = clock
        self._verifier = Verifier(dict(credentials), dict(security_tokens or {}))
        self._world = World(join_delay=join_delay, list_delay=list_delay, node_quota=node_quota)
        self._lock = threading.RLock()
        self._control: Control | None = None
        self._server = LoopbackServer(self._answer, port=port)
        self._gateway = Gateway(
            self._world, self._verifier, now=lambda: self.now, pause=self._server.pause, lock=self._lock
        )

    @property
    def url(self) -> str:
        """The endpoint to give to a client, without a trailing slash."""
        return self._server.url

    def start(self) -> None:
        """Begin to serve. Raises ``OSError`` when the port is taken."""
        self._server.start()

    def close(self) -> None:
        """Be unreachable until started again; what was sold stays sold."""
        self._server.close()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def steer_by(self, control: Control) -> None:
        """Answer requests below ``/_sandbox/`` by this function."""
        self._control = control

    @property
    def now(self) -> datetime:
        """The cloud's own time."""
        return self._clock() + self.skew

    @property
    def credentials(self) -> dict[str, str]:
        """Access key ids and their secrets; change it to rotate a key."""
        return self._verifier.secrets

    @property
    def security_tokens(self) -> dict[str, str]:
        """Ids of temporary access keys and their security tokens."""
        return self._verifier.tokens

    @property
    def orders(self) -> list[Order]:
        """Every sale, oldest first, whatever became of its answer."""
        with self._lock:
            return list(self._world.orders)

    @property
    def requests(self) -> list[LoggedRequest]:
        """Every request to the API, oldest first."""
        with self._lock:
            return list(self._gateway.log)

    @property
    def clusters(self) -> list[str]:
        """Ids of the clusters there are."""
        with self._lock:
            return list(self._world.clusters)

    def add_cluster(
        self,
        cluster_id: str,
        *,
        workers: int = 0,
        masters: int = 0,
        instance_type: str = "ens.sn1.tiny",
        profile: str = "Edge",
        sells_while_scaling: bool = False,
    ) -> None:
        """Add a cluster whose nodes have been ready for a day."""
        with self._lock:
            cluster = self._world.add_cluster(
                cluster_id,
                self.now,
                workers=workers,
                masters=masters,
                instance_type=instance_type,
                profile=profile,
            )
            cluster.sells_while_scaling = sells_while_scaling

    def set_cluster(
        self, cluster_id: str, *, state: str | None = None, profile: str = "Edge", listing: Listing = HONEST
    ) -> None:
        """Say what the cluster is and how truthful its node list; state None: running, or scaling during a task."""
        with self._lock:
            cluster = self._world.cluster(cluster_id)
            cluster.state, cluster.profile, cluster.listing = state, profile, listing

    def ready_workers(self, cluster_id: str) -> int:
        """Workers that carry load now, lists and lags aside."""
        with self._lock:
            return len(self._world.cluster(cluster_id).ready_workers(self.now))

    def lose(self, cluster_id: str, count: int) -> None:
        """Make so many ready workers NotReady, the oldest first."""
        with self._lock:
            now = self.now
            for machine in self._world.cluster(cluster_id).ready_workers(now)[:count]:
                machine.lost_at = now

    def recover(self, cluster_id: str) -> None:
        """Bring all lost workers back."""
        with self._lock:
            for machine in self._world.cluster(cluster_id).machines:
                machine.lost_at = None

    def buy_by_console(
        self,
        cluster_id: str,
        count: int,
        *,
        instance_type: str = "ens.sn1.tiny",
        with_task: bool = True,
        fate: Fate = Fate(),  # noqa: B008 - frozen
    ) -> Order:
        """A colleague's scale-out, with a task in the cluster's list or without."""
        with self._lock:
            form = OrderForm(count, instance_type)
            return self._world.sell(cluster_id, self.now, form, nonce=None, fate=fate, with_task=with_task)

    def fail_next(self, fault: Fault, *, action: str = "ScaleOutCluster", times: int = 1) -> None:
        """Bend the next answers to an action, in the order in which faults were given."""
        with self._lock:
            self._gateway.faults.extend([(action, fault)] * times)

    def fail_always(self, fault: Fault, *, action: str = "ScaleOutCluster") -> None:
        """Bend every answer to an action that no ``fail_next`` bends, until ``heal``."""
        with self._lock:
            self._gateway.standing[action] = fault

    def doom_next(self, fate: Fate) -> None:
        """Decide what becomes of the next sale by the API."""
        with self._lock:
            self._world.fates.append(fate)

    def heal(self) -> None:
        """Forget the faults and fates not yet used."""
        with self._lock:
            self._gateway.faults.clear()
            self._gateway.standing.clear()
            self._world.fates.clear()

    @property
    def unused(self) -> list[str]:
        """What ``fail_next`` and ``doom_next`` gave and nothing has met: each fault's action, and "" for a fate."""
        with self._lock:
            return [*(action for action, _ in self._gateway.faults), *("" for _ in self._world.fates)]

    def _answer(self, request: Request) -> Reply | Cutoff:
        if self._control is not None and request.segments[0] == CONTROL:
            return self._control(request)
        return self._gateway.answer(request)
