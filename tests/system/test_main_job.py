"""The whole job with real parts: Prometheus, an edge cloud and the daemon, each a process of its own.

A story is told by a function over a site of its own. All of them play side by side, because they mostly wait: for
leases, cooldowns and the thirty seconds that a node list is kept. What was bought is always compared with what the
cloud sold, nonce by nonce.
"""

import signal
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.system.prometheus_server import PrometheusServer
from tests.system.site import (
    COOLDOWN_SECONDS,
    LOGIN_PASSWORD,
    PER_WORKER,
    SECRETS,
    Daemon,
    Site,
    environment,
    write_policy,
)

pytestmark = [pytest.mark.system, pytest.mark.timeout(300)]

LEASE_SECONDS = 15
LOOK_SECONDS = 30  # how old a node list may be, and until when it may show workers that are ready as joining
JOINED_WITHIN = 20  # seconds; they take five
ENDED_WITHIN = 3  # seconds after SIGTERM, when nothing is being sent
Story = Callable[[Site], None]


def load_is_met_once_whoever_is_killed(site: Site) -> None:
    daemon = site.begin()
    daemon.until("readiness", daemon.answers("/readyz", 200), within=10)

    site.sessions = 7 * PER_WORKER - 100
    daemon.until("an accepted purchase", lambda: site.states() == ["accepted"], within=30)
    daemon.until("the workers carry load", lambda: site.ready() == 7, within=JOINED_WITHIN)
    assert site.bought_once() == [3]

    daemon.kill()
    killed_at = time.monotonic()
    site.sessions = 12 * PER_WORKER - 100
    daemon = site.run()
    daemon.until("an evaluation once the lease of the dead has run out", daemon.decisions, within=LEASE_SECONDS + 15)
    assert time.monotonic() - killed_at > LEASE_SECONDS - 6, "a lease is renewed every 5 s, for 15 s"
    daemon.until("the cooldown holds what is needed", lambda: "cooldown" in daemon.reasons(), within=20)
    daemon.evaluates(2, within=10)
    assert site.bought_once() == [3]

    daemon.until("the difference is bought", lambda: len(site.purchases()) == 2, within=COOLDOWN_SECONDS)
    daemon.until("its workers carry load", lambda: site.ready() == 12, within=JOINED_WITHIN)
    assert site.bought_once() == [3, 5]
    first, second = site.purchases()
    assert first.sent_at is not None
    assert second.reserved_at - first.sent_at >= timedelta(seconds=COOLDOWN_SECONDS)

    daemon.until("both are fulfilled", lambda: site.states() == ["fulfilled", "fulfilled"], within=60)
    for order, purchase in zip(site.cloud.orders(), site.purchases(), strict=True):
        assert {arrival.instance_id for arrival in purchase.arrivals} == set(order["instance_ids"])
        assert purchase.task_id == order["task_id"]
    daemon.until(
        "the load is met", lambda: met(daemon.decisions()[-1]["sentence"], serving=12), within=LOOK_SECONDS + 15
    )

    assert daemon.get("/healthz").status_code == 200
    assert daemon.get("/readyz").status_code == 200
    shown = figures(daemon.metrics())
    assert shown['autoscaler_purchases{imagined="false",state="fulfilled"}'] == 2
    assert shown["autoscaler_purchased_workers_total"] == 8
    assert shown['autoscaler_committed_money{currency="CNY"}'] == 8 * 180
    assert shown['autoscaler_workers_ready{policy="edge"}'] == 12
    of_this_process = 'autoscaler_evaluations_total{dry_run="false",outcome="scale_out",reason="needed"}'
    assert shown[of_this_process] == 1


def a_purchase_under_way_is_finished_before_the_end(site: Site) -> None:
    daemon = site.begin()
    site.cloud.order("fault", fault={"kind": "late", "by": 12})
    site.sessions = 7 * PER_WORKER
    daemon.until("the cloud has sold", site.cloud.orders, within=20)
    sold_at = time.monotonic()
    site.sessions = 12 * PER_WORKER
    daemon.until("evaluations go on meanwhile", lambda: "purchase_open" in daemon.reasons(), within=10)

    daemon.signal(signal.SIGTERM)
    daemon.until("it says that it waits", lambda: stopping(daemon) == [1], within=5)
    assert site.states() == ["sending"]
    assert daemon.ends(within=20) == 0
    assert time.monotonic() - sold_at > 10, "the answer came after 12 s"
    assert site.states() == ["accepted"]
    assert site.bought_once() == [3]
    assert site.purchases()[0].task_id == site.cloud.orders()[0]["task_id"]

    daemon = site.run()
    started_at = time.monotonic()
    daemon.until("an evaluation: the lease was given back", daemon.decisions, within=LEASE_SECONDS)
    daemon.until("the workers are known to have come", lambda: site.states() == ["fulfilled"], within=60)
    assert time.monotonic() - started_at < COOLDOWN_SECONDS
    assert site.bought_once() == [3]


def a_purchase_whose_process_was_killed_is_found_and_not_repeated(site: Site) -> None:
    daemon = site.begin()
    site.cloud.order("fault", fault={"kind": "late", "by": 60})
    site.sessions = 7 * PER_WORKER
    daemon.until("the cloud has sold", site.cloud.orders, within=20)
    daemon.kill()
    assert site.states() == ["sending"]

    site.sessions = 20 * PER_WORKER
    daemon = site.run()
    daemon.until("its outcome is unknown", lambda: daemon.events("purchase.unknown"), within=60)
    daemon.until("that blocks what is needed", lambda: "purchase_unknown" in daemon.reasons(), within=10)
    assert site.bought_once() == [3]
    site.sessions = 7 * PER_WORKER
    # By itself it would be found five minutes after it was sent, when no other task can be taken for its own.
    said = site.command("purchases", "settle", "1", "--bought", "3", "--reason", "the console says", "--author", "Li")
    assert "accepted" in said
    daemon.until("its workers settle it", lambda: site.states() == ["fulfilled"], within=90)
    (purchase,) = site.purchases()
    assert purchase.adopted
    assert purchase.arrived == 3
    daemon.until(
        "the load is met", lambda: met(daemon.decisions()[-1]["sentence"], serving=7), within=LOOK_SECONDS + 15
    )
    assert site.bought_once() == [3]


def nothing_is_bought_while_prometheus_is_down(site: Site) -> None:
    write_policy(site.folder, site.cluster_id, counted=False)
    with PrometheusServer(site.folder / "prometheus") as prometheus:
        site.prometheus = prometheus
        daemon = site.begin()
        prometheus.stop()
        site.sessions = 7 * PER_WORKER
        daemon.until("a gap", lambda: daemon.reasons()[-1] == "gap", within=10)
        assert {decision["reason"] for decision in daemon.evaluates(4, within=20)} == {"gap"}
        assert site.bought_once() == []
        assert figures(daemon.metrics())['autoscaler_gaps_total{reason="unreachable"}'] > 0
        assert daemon.get("/healthz").status_code == 200

        prometheus.start()
        daemon.until("what is needed is bought", lambda: site.states() == ["accepted"], within=30)
        daemon.until("its workers carry load", lambda: site.ready() == 7, within=JOINED_WITHIN)
        assert site.bought_once() == [3]


def nothing_is_bought_while_the_cloud_cannot_be_seen(site: Site) -> None:
    daemon = site.begin()
    out_at = time.monotonic()
    for action in ("DescribeClusterDetail", "DescribeClusterNodes", "DescribeClusterTasks", "ScaleOutCluster"):
        site.cloud.order("standing-fault", fault={"kind": "cut", "sold": False}, action=action)
    daemon.until("the kept look is too old", lambda: daemon.reasons()[-1] == "capacity_gap", within=45)
    site.sessions = 7 * PER_WORKER
    daemon.until("36 s", lambda: time.monotonic() - out_at > 36, within=40)
    assert {decision["reason"] for decision in daemon.evaluates(4, within=20)} == {"capacity_gap"}
    assert site.purchases() == ()

    site.cloud.order("heal")
    daemon.until("what is needed is bought", lambda: site.states() == ["accepted"], within=30)
    daemon.until("its workers carry load", lambda: site.ready() == 7, within=JOINED_WITHIN)
    assert site.bought_once() == [3]


def a_broken_file_leaves_its_last_good_policy(site: Site) -> None:
    # What the kubelet puts into a pod beside a Service called "autoscaler" is no setting.
    injected = {"AUTOSCALER_PORT": "tcp://10.0.0.1:8080", "AUTOSCALER_SERVICE_HOST": "10.0.0.1"}
    daemon = site.run("--init", **injected)
    daemon.until("a first decision", daemon.decisions, within=40)
    good = site.policy.read_text(encoding="utf-8")

    site.policy.write_text(good.replace("per_action: 5", "per_action: five"), encoding="utf-8")
    daemon.signal(signal.SIGHUP)
    daemon.until("it says so", lambda: daemon.events("policies.kept"), within=10)
    (problem,) = daemon.events("policies.problem")
    assert "edge.yaml" in problem["problem"]
    assert "per_action" in problem["problem"]
    assert figures(daemon.metrics())["autoscaler_policy_problems"] == 1
    site.sessions = 7 * PER_WORKER
    daemon.until("it buys by the last good policy", lambda: site.states() == ["accepted"], within=30)

    write_policy(site.folder, site.cluster_id, maximum=7)
    daemon.signal(signal.SIGHUP)
    daemon.until("it is loaded", lambda: daemon.events("policies.loaded")[-1]["errors"] == 0, within=10)
    assert len(daemon.events("policies.loaded")) == 3
    site.sessions = 12 * PER_WORKER
    daemon.until("the new maximum bounds", lambda: daemon.reasons()[-1] == "maximum", within=20)
    assert figures(daemon.metrics())["autoscaler_policy_problems"] == 0

    asked_at = time.monotonic()
    daemon.signal(signal.SIGTERM)
    assert daemon.ends(within=10) == 0
    assert time.monotonic() - asked_at < ENDED_WITHIN, "nothing was being sent"
    assert stopping(daemon) == [0]
    assert site.bought_once() == [3]


def a_cloud_that_does_not_answer_keeps_nobody_from_stopping(site: Site) -> None:
    site.cloud.order("standing-fault", fault={"kind": "late", "by": 120}, action="DescribeClusterDetail")
    daemon = site.run("--init")
    daemon.until("the cloud was asked", lambda: site.cloud.shows("requests"), within=40)
    assert daemon.get("/healthz").status_code == 200
    assert daemon.get("/readyz").status_code == 503, "the first round has not ended"

    asked_at = time.monotonic()
    daemon.signal(signal.SIGTERM)
    assert daemon.ends(within=10) == 0
    assert time.monotonic() - asked_at < ENDED_WITHIN


def a_cloud_that_quotes_the_request_is_not_repeated(site: Site) -> None:
    daemon = site.begin()
    said = f"no capacity left for password={LOGIN_PASSWORD}, signed with {SECRETS[0]}"
    site.cloud.order("fault", fault={"kind": "answer", "status": 503, "code": "Throttling.User", "message": said})
    site.sessions = 7 * PER_WORKER
    daemon.until("a pause after the refusal", lambda: "backoff" in daemon.reasons(), within=30)
    (purchase,) = site.purchases()
    assert (purchase.state, purchase.code) == ("rejected", "Throttling.User")
    assert purchase.message is not None
    assert purchase.message.startswith("no capacity left")
    daemon.evaluates(3, within=15)
    assert site.bought_once() == []
    assert len(site.purchases()) == 1
    daemon.metrics()
    assert b"no capacity left" in b"".join(site.written().values()), "or there would be nothing to hide"


STORIES: tuple[Story, ...] = (
    load_is_met_once_whoever_is_killed,
    a_purchase_under_way_is_finished_before_the_end,
    a_purchase_whose_process_was_killed_is_found_and_not_repeated,
    nothing_is_bought_while_prometheus_is_down,
    nothing_is_bought_while_the_cloud_cannot_be_seen,
    a_broken_file_leaves_its_last_good_policy,
    a_cloud_that_does_not_answer_keeps_nobody_from_stopping,
    a_cloud_that_quotes_the_request_is_not_repeated,
)


@pytest.fixture(scope="module")
def playing(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, prometheus: PrometheusServer
) -> Iterator[Mapping[Story, "Future[None]"]]:
    """The stories that this run asks for, all begun."""
    items = (item for item in request.session.items if isinstance(item, pytest.Function))
    wanted: list[Story] = [item.callspec.params["story"] for item in items if "playing" in item.fixturenames]  # type: ignore[misc]

    def play(story: Story) -> None:
        with Site(tmp_path_factory.mktemp("site"), prometheus) as site:
            story(site)
            no_secret_is_in(site.written())

    with ThreadPoolExecutor(len(wanted)) as pool:
        yield {story: pool.submit(play, story) for story in wanted}


def met(sentence: str, *, serving: int) -> bool:
    """Whether a decision found what is wanted among the workers that serve."""
    return sentence.startswith(f"hold at {serving}: ") and sentence.endswith(", which is met")


def stopping(daemon: Daemon) -> list[int]:
    """How many purchases were being sent when the daemon was told to stop."""
    return [event["sending"] for event in daemon.events("daemon.stopping")]


def figures(exposition: str) -> dict[str, float]:
    """The figures of a scrape, each by its name and labels as Prometheus writes them, the labels in order."""
    return {
        sample.name + _labels(sample.labels): sample.value
        for family in text_string_to_metric_families(exposition)
        for sample in family.samples
    }


def _labels(labels: Mapping[str, str]) -> str:
    pairs = ",".join(f'{name}="{value}"' for name, value in sorted(labels.items()))
    return f"{{{pairs}}}" if pairs else ""


def no_secret_is_in(files: Mapping[str, bytes]) -> None:
    """Fails where a file of the daemon holds one of its secrets; none may be missing from what is looked at."""
    assert {"daemon-1.log", "ledger.db"} <= files.keys()
    assert b"daemon.started" in files["daemon-1.log"]
    leaks = [name for name, content in files.items() for secret in SECRETS if secret.encode() in content]
    assert not leaks


@pytest.mark.parametrize("story", STORIES, ids=lambda story: story.__name__.replace("_", " "))
def test_the_story_goes(story: Story, playing: Mapping[Story, "Future[None]"]) -> None:
    playing[story].result()


@pytest.mark.parametrize(
    ("environ", "says", "never"),
    [
        pytest.param(
            {}, ["--init", "edge is live"], "Traceback", id="an empty ledger under a live policy asks for --init"
        ),
        pytest.param(
            {"AUTOSCALER_PORT": "tcp://10.0.0.1:8080", "AUTOSCALER_SERVICE_PORT_HTTP": "8080"},
            ["--init"],
            "AUTOSCALER_PORT",
            id="what Kubernetes injects is no wrong setting",
        ),
        pytest.param(
            {"AUTOSCALER_API_TOKNS": f"oncall={SECRETS[2]}"},
            ["AUTOSCALER_API_TOKNS", "write AUTOSCALER_API_TOKENS"],
            SECRETS[2],
            id="an unknown setting is named with the nearest one, without its value",
        ),
    ],
)
def test_what_cannot_run_exits_2_and_says_the_mend(
    tmp_path: Path, environ: dict[str, str], says: list[str], never: str
) -> None:
    write_policy(tmp_path, "c0ffee")
    with Daemon(tmp_path / "daemon.log", {**environment(tmp_path), **environ}) as daemon:
        assert daemon.ends(within=20) == 2
        for text in says:
            assert text in daemon.written()
    assert never not in daemon.written()
