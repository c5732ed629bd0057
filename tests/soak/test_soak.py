"""The soak's own parts, and a short one: two kills of one daemon."""

import random
from collections.abc import Iterator, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from autoscaler.clock import utc_now
from autoscaler.sandbox import SandboxCloud
from autoscaler.sandbox.control import Control
from tests.soak.__main__ import main
from tests.soak.clock import BEGINS, MovedClock
from tests.soak.deck import Deck
from tests.soak.mischief import FATES, LISTINGS, LOST_ANSWERS, REFUSALS, SLOW_ANSWERS, UNREADABLE
from tests.system.prometheus_server import binary

COMMANDS: Mapping[str, Mapping[str, Any]] = {
    **{kind: {"fault": fault} for kind, fault in (LOST_ANSWERS | SLOW_ANSWERS | REFUSALS | UNREADABLE).items()},
    **{kind: {"fate": fate} for kind, fate in FATES.items()},
    **{kind: {"cluster_id": "C1", "listing": listing} for kind, listing in LISTINGS.items()},
}


@pytest.fixture(scope="module")
def steered() -> Iterator[httpx.Client]:
    with SandboxCloud() as cloud:
        cloud.steer_by(Control(cloud))
        cloud.add_cluster("C1")
        with httpx.Client(base_url=f"{cloud.url}/_sandbox/", trust_env=False) as client:
            yield client


@pytest.mark.parametrize("kind", COMMANDS)
def test_the_cloud_knows_every_mischief(kind: str, steered: httpx.Client) -> None:
    arguments = COMMANDS[kind]
    command = {"fault": "fault", "fate": "fate"}.get(next(iter(arguments)), "cluster")
    response = steered.post(command, json=arguments)
    assert response.status_code == 200, response.text


def test_everybody_at_its_file_sees_the_clock_moved(tmp_path: Path) -> None:
    mine, theirs = MovedClock(tmp_path / "clock"), MovedClock(tmp_path / "clock")
    assert theirs.offset == BEGINS
    mine.forward(timedelta(minutes=16))
    assert theirs.offset == BEGINS + timedelta(minutes=16)
    assert abs(theirs() - utc_now() - theirs.offset) < timedelta(seconds=1)


@pytest.mark.parametrize("by", [timedelta(seconds=-1), -BEGINS], ids=["back", "beyond real time"])
def test_the_clock_goes_where_it_may(tmp_path: Path, by: timedelta) -> None:
    clock = MovedClock(tmp_path / "clock")
    with pytest.raises(ValueError, match="forward"):
        clock.forward(by)


def test_a_deck_leaves_nothing_out() -> None:
    deck = Deck("aabc", random.Random(1))
    rounds = ["".join(sorted(deck.next() for _ in range(4))) for _ in range(3)]
    assert rounds == ["aabc"] * 3


@pytest.mark.system
@pytest.mark.timeout(300)
@pytest.mark.skipif(binary() is None, reason="prometheus is not on this machine")
def test_a_short_soak(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--kills", "2", "--daemons", "1", "--seed", "1"]) == 0
    printed = capsys.readouterr().out
    assert "0 doubled" in printed
    assert "0 never settled" in printed
