"""Months as the cloud bills them."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoscaler.months import add_months

MONTHS = {
    "the same day of the next month": ("2026-06-01", 1, "2026-07-01"),
    "the last day of a month without such a day": ("2026-01-31", 1, "2026-02-28"),
    "the last day of a leap February": ("2028-01-31", 1, "2028-02-29"),
    "a short month in between changes nothing": ("2026-01-31", 2, "2026-03-31"),
    "over the end of the year": ("2026-12-15", 1, "2027-01-15"),
    "into the February of the next year": ("2026-11-30", 3, "2027-02-28"),
    "a leap day and a year": ("2028-02-29", 12, "2029-02-28"),
    "no months": ("2026-06-01", 0, "2026-06-01"),
}


@pytest.mark.parametrize(("at", "months", "expected"), MONTHS.values(), ids=MONTHS)
def test_adds(at: str, months: int, expected: str) -> None:
    moved = add_months(datetime.fromisoformat(f"{at}T13:37:05.000006Z"), months)
    assert moved == datetime.fromisoformat(f"{expected}T13:37:05.000006Z")


@given(st.datetimes(datetime(2020, 1, 1), datetime(2040, 1, 1), timezones=st.just(UTC)), st.integers(0, 24))
def test_keeps_the_time_of_day_and_the_order(at: datetime, months: int) -> None:
    moved = add_months(at, months)
    assert moved.timetz() == at.timetz()
    assert 28 * months <= (moved - at).days <= 31 * months
    assert moved < add_months(at, months + 1)
