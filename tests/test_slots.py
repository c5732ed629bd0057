from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoscaler.slots import SLOT, Slot, slot_of

periods = st.integers(1, 4 * 3600).map(lambda quarters: quarters * SLOT)
instants = st.datetimes(datetime(2000, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC))


@given(st.text(min_size=1), periods)
def test_a_slot_lies_within_its_period(name: str, period: timedelta) -> None:
    slot = slot_of(name, period)
    assert timedelta(0) <= slot.index * SLOT < period


@given(st.text(min_size=1), periods, instants)
def test_the_next_start_is_at_or_after_now_and_less_than_a_period_away(
    name: str, period: timedelta, now: datetime
) -> None:
    start = slot_of(name, period).next_start(now)
    assert now <= start < now + period


@given(st.text(min_size=1), periods, instants)
def test_starts_are_a_whole_number_of_periods_apart(name: str, period: timedelta, now: datetime) -> None:
    slot = slot_of(name, period)
    start = slot.next_start(now)
    assert slot.next_start(start) == start
    assert slot.next_start(start + timedelta(microseconds=1)) == start + period


@pytest.mark.parametrize(
    ("name", "index"),
    [
        pytest.param("edge-beijing", 47, id="a slot never changes between releases"),
        pytest.param("edge-shanghai", 14, id="another policy has another slot"),
    ],
)
def test_slot_is_a_function_of_the_name(name: str, index: int) -> None:
    assert slot_of(name, timedelta(seconds=30)) == Slot(timedelta(seconds=30), index)


def test_thousands_of_policies_are_as_many_jobs_as_there_are_slots() -> None:
    slots = [slot_of(f"edge-{n}", timedelta(seconds=30)) for n in range(5000)]
    sizes = [slots.count(slot) for slot in set(slots)]
    assert len(sizes) == 120
    assert max(sizes) < 3 * 5000 / 120
