"""A month of history out of a real Prometheus: at every instant it is what a reading of that instant was."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from math import isnan, sin

import pytest

from autoscaler.model import GapReason, Question, Reading
from autoscaler.prometheus import Course, Prometheus, Server
from tests.system.prometheus_server import STALE, PrometheusServer

pytestmark = pytest.mark.system

MINUTE, DAYS = timedelta(minutes=1), 30
TICKS = DAYS * 1440
START = datetime.now(UTC).replace(second=0, microsecond=0) - timedelta(days=DAYS, hours=1)
MAX_AGE = timedelta(minutes=2)


def written(tick: int) -> float:
    return round(5000 + 3000 * sin(tick / 230), 3)


@pytest.fixture(scope="module")
def history(fresh_prometheus: PrometheusServer) -> Iterator[Prometheus]:
    """A month of samples a minute apart, with an outage of an hour, a twin for ten minutes, and an end."""
    for first in range(0, TICKS, 10_000):
        ticks = [tick for tick in range(first, min(first + 10_000, TICKS)) if not 20_000 <= tick < 20_060]
        fresh_prometheus.write("month_load", [(START + tick * MINUTE, written(tick)) for tick in ticks], site="a")
    twin = [(START + tick * MINUTE, 1.0) for tick in range(30_000, 30_010)]
    fresh_prometheus.write("month_load", [*twin, (START + 30_010 * MINUTE, STALE)], site="b")
    edge = Prometheus(Server(fresh_prometheus.url), clock=lambda: datetime.now(UTC))
    yield edge
    edge.close()


@pytest.mark.timeout(240)  # 43,200 instants
def test_a_month_at_a_minute(history: Prometheus) -> None:
    [single] = history.read_course([Question("month_load", MAX_AGE)], START, MINUTE, TICKS, lambda *_: None)
    assert isinstance(single, Course)
    assert len(single.values) == TICKS
    # A sample carries for two minutes of age; the look-back of five would have carried it further.
    assert single.gaps == {GapReason.STALE: 3, GapReason.NO_DATA: 55, GapReason.SEVERAL_SERIES: 10}
    for tick in (0, 1, 1_999, 2_000, 19_999, 20_001, 20_060, 43_199):
        assert single.values[tick] == written(min(tick, 19_999) if tick < 20_060 else tick)


@pytest.mark.parametrize("around", [0, 2_000, 20_000, 20_060, 30_000, 30_010, TICKS - 3])
def test_an_instant_of_history_is_the_reading_of_that_instant(history: Prometheus, around: int) -> None:
    question = Question("month_load", MAX_AGE)
    first = max(0, around - 4)
    [course] = history.read_course([question], START + first * MINUTE, MINUTE, 8, lambda *_: None)
    assert isinstance(course, Course)
    for number, value in enumerate(course.values):
        [reading] = history.read([question], START + (first + number) * MINUTE)
        assert isnan(value) is not isinstance(reading, Reading)
        assert isnan(value) or (isinstance(reading, Reading) and float(reading.value) == value)
