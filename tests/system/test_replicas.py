"""Daemons that share clusters, as processes: two and then others on one PostgreSQL, and two on one file of SQLite.

The two stories are played side by side, since they mostly wait for leases. What was bought is compared with what the
cloud sold, nonce by nonce.
"""

import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest
from pydantic import TypeAdapter

from autoscaler.clock import utc_now
from autoscaler.ledger import LedgerView, view_ledger
from autoscaler.sandbox import Order
from tests.crashes.judge import doubled
from tests.soak.store import InFile, InServer
from tests.system.postgres_server import PostgresServer
from tests.system.prometheus_server import PrometheusServer
from tests.system.site import Cloud, Daemon, environment
from tests.system.tcp_proxy import TcpProxy

pytestmark = [pytest.mark.system, pytest.mark.timeout(200)]

LEASE_SECONDS = 15
MOVES_WITHIN = 20 + 5  # seconds from a death until its clusters are another's, and what a busy machine adds
STARTS_WITHIN = 90  # seconds; two, when the machine has nothing else to do
WORKERS_AT_FIRST = 2
PER_WORKER = 100
ORDERS = TypeAdapter(tuple[Order, ...])
Story = Callable[["Fleet"], None]

POLICY = """\
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
checks:
  - name: sessions
    query: sum(live_sessions{{site="{cluster}"}})
    strategy: per_worker
    load_per_worker: {per_worker}
limits:
  maximum: 20
  per_action: 5
  budgets: [{{workers: 20, per: 24h}}]
cooldown: 1s
warm_up: 0s
"""

SLOW_CLAIMS = """
CREATE FUNCTION slow_down() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN PERFORM pg_sleep(1.5); RETURN NEW; END $$;
CREATE TRIGGER slow_down BEFORE UPDATE ON purchases FOR EACH ROW
WHEN (NEW.state = 'sending' AND OLD.state = 'intended') EXECUTE FUNCTION slow_down()
"""


class Fleet:
    """Clusters at one cloud, and the daemons that share them over one ledger."""

    def __init__(self, folder: Path, store: InFile | InServer, prometheus: PrometheusServer, clusters: int) -> None:
        self.store = store
        self.clusters = [f"{folder.name}-{number}" for number in range(clusters)]
        self._folder = folder
        self._prometheus = prometheus
        self._wanted = dict.fromkeys(self.clusters, WORKERS_AT_FIRST)
        self._daemons: list[Daemon] = []
        self._ledger: LedgerView | None = None
        (folder / "policies").mkdir()
        for cluster in self.clusters:
            policy = POLICY.format(cluster=cluster, per_worker=PER_WORKER)
            (folder / "policies" / f"{cluster}.yaml").write_text(policy, encoding="utf-8")
        began_with = [f"--cluster={cluster}={WORKERS_AT_FIRST}" for cluster in self.clusters]
        self.cloud = Cloud(["-m", "autoscaler.sandbox", "--join-delay=3", *began_with], folder / "cloud.log")
        self.want()

    def close(self) -> None:
        for daemon in self._daemons:
            daemon.kill()
        self.cloud.kill()
        if self._ledger is not None:
            self._ledger.close()

    def run(self, *options: str) -> Daemon:
        """Start ``autoscaler run``."""
        environ = environment(self._folder, cloud=self.cloud.url, prometheus=self._prometheus.url)
        log = self._folder / f"daemon-{len(self._daemons) + 1}.log"
        daemon = Daemon(log, {**environ, "AUTOSCALER_LEDGER": self.store.url}, *options)
        self._daemons.append(daemon)
        return daemon

    def want(self, **more: int) -> None:
        """Let the load of clusters ask for so many workers more, and that of all others for what it did."""
        for cluster, workers in more.items():
            self._wanted[cluster] += workers
        now = utc_now()
        self._prometheus.write_all(
            ({"__name__": "live_sessions", "site": cluster}, [(now, wanted * PER_WORKER)])
            for cluster, wanted in self._wanted.items()
        )

    def held(self, daemon: Daemon) -> list[str]:
        """The clusters whose lease a daemon holds, by the ledger."""
        (started,) = daemon.until("its start", lambda: daemon.events("daemon.started"), within=STARTS_WITHIN)
        if self._ledger is None:
            self._ledger = view_ledger(self.store.url, clock=utc_now)
        return [lease.cluster_id for lease in self._ledger.holders() if lease.holder == started["holder"]]

    def sold(self) -> Counter[str]:
        """Workers sold, by cluster; fails unless each order is one purchase's, and each purchase at most one order."""
        orders = ORDERS.validate_python(self.cloud.shows("orders"))
        requests = self.cloud.shows("requests")
        posts = [request["nonce"] for request in requests if request["method"] == "POST"]
        # The ledger last: what was sold has its row before.
        assert doubled(self.store.rows(), orders, posts) == []
        sold: Counter[str] = Counter()
        for order in orders:
            sold[order.cluster_id] += order.count
        return sold

    def slow_down_claims(self) -> None:
        """From now on the claim of a purchase takes more than a second, between its reservation and its request."""
        assert isinstance(self.store, InServer)
        self.store.execute(SLOW_CLAIMS)

    def states(self) -> Counter[str]:
        """How many purchases are in each state."""
        return Counter(row.state for row in self.store.rows())


def several_share_the_clusters_of_one_postgresql(fleet: Fleet) -> None:
    first, second = fleet.run("--init"), fleet.run("--init")
    first.until("an even share", lambda: [len(fleet.held(d)) for d in (first, second)] == [4, 4], within=STARTS_WITHIN)
    assert not set(fleet.held(first)) & set(fleet.held(second))
    for daemon in (first, second):
        daemon.until("it works", lambda d=daemon: set(fleet.held(d)) <= decided(d), within=40)
    (of_first, orphan, *_), (of_second, *_) = fleet.held(first), fleet.held(second)
    needs = Counter({of_first: 2, of_second: 3})
    fleet.want(**needs)
    first.until("each buys for its own", lambda: fleet.sold() == needs, within=40)
    assert [len(daemon.events("purchase.sending")) for daemon in (first, second)] == [1, 1]

    first.kill()
    killed_at = time.monotonic()
    fleet.want(**{orphan: 1})
    second.until("its clusters move", lambda: len(fleet.held(second)) == 8, within=MOVES_WITHIN)
    assert time.monotonic() - killed_at > LEASE_SECONDS - 6, "a lease is renewed every 5 s, for 15 s"
    needs[orphan] += 1
    second.until("what its clusters need is bought", lambda: fleet.sold() == needs, within=40)

    third = fleet.run()
    third.until(
        "it takes its share", lambda: [len(fleet.held(d)) for d in (second, third)] == [4, 4], within=STARTS_WITHIN
    )
    one_stands_still_before_it_sends(fleet, third, second, needs)


def one_stands_still_before_it_sends(fleet: Fleet, sleeper: Daemon, other: Daemon, needs: Counter[str]) -> None:
    """It has reserved and not yet claimed, for longer than its lease: its claim is made to take a while."""
    fleet.slow_down_claims()
    cluster = next(cluster for cluster in fleet.held(sleeper) if cluster not in needs)
    fleet.want(**{cluster: 2})
    sleeper.until("a purchase is reserved", lambda: fleet.states()["intended"], within=40)
    sleeper.signal(signal.SIGSTOP)
    stopped_at = time.monotonic()
    # The writers wait for the one that stands still with a claim in its hand, until the server has enough of it.
    other.until("its clusters move", lambda: len(fleet.held(other)) == 8, within=MOVES_WITHIN + 10)
    assert fleet.sold() == needs
    needs[cluster] += 2
    other.until("another buys what it wanted to", lambda: fleet.sold() == needs, within=40)

    other.until("a lease is over by every clock", lambda: time.monotonic() > stopped_at + LEASE_SECONDS, within=30)
    sleeper.signal(signal.SIGCONT)
    # Its claim was cut off by the server, or had not even begun when it was stopped.
    noticed = ("purchase.unclaimed", "purchase.not_sent")
    sleeper.until("it notices", lambda: any(map(sleeper.events, noticed)), within=40)
    assert sleeper.events("purchase.sending") == []
    other.evaluates(8, within=40)
    assert fleet.sold() == needs
    assert fleet.states()["cancelled"] == 1


def two_on_one_file_do_not_buy_twice(fleet: Fleet) -> None:
    first, second = fleet.run("--init"), fleet.run("--init")
    first.until("each has one", lambda: [len(fleet.held(d)) for d in (first, second)] == [1, 1], within=STARTS_WITHIN)
    needs = Counter(dict.fromkeys(fleet.clusters, 2))
    fleet.want(**needs)
    first.until("each buys for its own", lambda: fleet.sold() == needs, within=40)
    assert [len(daemon.events("purchase.sending")) for daemon in (first, second)] == [1, 1]

    # One that dies before it has noted the answer leaves a purchase that is unknown for minutes.
    first.until("both have come", lambda: fleet.states() == {"fulfilled": 2}, within=60)
    moved = fleet.held(first)
    # Not stopped: one that stands still in the middle of a write keeps the whole file from the others until it wakes.
    first.kill()
    fleet.want(**dict.fromkeys(moved, 1))
    needs += Counter(dict.fromkeys(moved, 1))
    second.until("its cluster moves", lambda: len(fleet.held(second)) == 2, within=MOVES_WITHIN)
    second.until("its need is met", lambda: fleet.sold() == needs, within=60)
    second.until("all have come", lambda: fleet.states() == {"fulfilled": 3}, within=60)
    assert fleet.sold() == needs


STORIES: Mapping[Story, int] = {several_share_the_clusters_of_one_postgresql: 8, two_on_one_file_do_not_buy_twice: 2}


@pytest.fixture(scope="module")
def playing(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    prometheus: PrometheusServer,
    postgres: PostgresServer,
) -> Iterator[Mapping[Story, "Future[None]"]]:
    """The stories that this run asks for, all begun."""
    items = (item for item in request.session.items if isinstance(item, pytest.Function))
    wanted: list[Story] = [item.callspec.params["story"] for item in items if "playing" in item.fixturenames]  # type: ignore[misc]

    def play(story: Story) -> None:
        folder = tmp_path_factory.mktemp("fleet")
        with ExitStack() as stack:
            if story is two_on_one_file_do_not_buy_twice:
                store: InFile | InServer = InFile(folder)
            else:
                store = InServer(postgres, stack.enter_context(TcpProxy(postgres.port)))
            fleet = Fleet(folder, store, prometheus, clusters=STORIES[story])
            stack.callback(fleet.close)
            story(fleet)

    with ThreadPoolExecutor(len(wanted)) as pool:
        yield {story: pool.submit(play, story) for story in wanted}


def decided(daemon: Daemon) -> set[str]:
    """The clusters for which a daemon has decided; a policy here is called as its cluster."""
    return {decision["policy"] for decision in daemon.decisions()}


@pytest.mark.parametrize("story", STORIES, ids=lambda story: story.__name__.replace("_", " "))
def test_the_story_goes(story: Story, playing: Mapping[Story, "Future[None]"]) -> None:
    playing[story].result()
