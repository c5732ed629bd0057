"""Durations: what Prometheus reads and prints, and what an operator is told otherwise."""

import re
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoscaler.duration import PATTERN, format_duration, parse_duration

READ = {
    "zero needs no unit": ("0", timedelta(0)),
    "zero may have one": ("0s", timedelta(0)),
    "seconds": ("90s", timedelta(seconds=90)),
    "milliseconds are not minutes and seconds": ("500ms", timedelta(milliseconds=500)),
    "several units, the largest first": ("1h30m", timedelta(hours=1, minutes=30)),
    "days": ("1d", timedelta(days=1)),
    "weeks": ("2w", timedelta(days=14)),
    "a year has 365 days": ("1y", timedelta(days=365)),
    "every unit at once": ("1y1w1d1h1m1s1ms", timedelta(days=373, hours=1, minutes=1, seconds=1, milliseconds=1)),
    "leading zeros": ("007m", timedelta(minutes=7)),
}


@pytest.mark.parametrize(("text", "length"), READ.values(), ids=READ)
def test_reads(text: str, length: timedelta) -> None:
    assert parse_duration(text) == length


WRITTEN = {
    "nothing": (timedelta(0), "0s"),
    "ninety seconds": (timedelta(seconds=90), "1m30s"),
    "an hour and a half": (timedelta(minutes=90), "1h30m"),
    "a day": (timedelta(hours=24), "1d"),
    "whole weeks": (timedelta(days=14), "2w"),
    "no odd weeks": (timedelta(days=90), "90d"),
    "no odd years": (timedelta(days=366), "366d"),
    "a whole year": (timedelta(days=365), "1y"),
    "milliseconds": (timedelta(seconds=1, milliseconds=500), "1s500ms"),
    "below a millisecond it rounds": (timedelta(microseconds=1600), "2ms"),
    "a negative one, for messages": (timedelta(minutes=-5), "-5m"),
}


@pytest.mark.parametrize(("length", "text"), WRITTEN.values(), ids=WRITTEN)
def test_writes(length: timedelta, text: str) -> None:
    assert format_duration(length) == text


REFUSED = {
    "nothing": ("", "missing"),
    "only white space": (" ", "missing"),
    "no unit": ("30", "no unit; write 30s, 30m or 30h"),
    "a fraction": ("1.5h", "fraction"),
    "a negative one": ("-5m", "negative"),
    "an unknown unit": ("5min", "not a duration"),
    "white space between": ("5 m", "not a duration"),
    "a line break at the end": ("5m\n", "not a duration"),
    "the wrong order": ("1m1h", "wrong order"),
    "a unit twice": ("1h1h", "twice"),
    "more than 64 bits of nanoseconds": ("293y", "longer than 292 years"),
    "other digits": ("٣m", "not a duration"),
    "a megabyte": ("1" * 1_000_000 + "s", "too long"),
}


@pytest.mark.parametrize(("text", "complaint"), REFUSED.values(), ids=REFUSED)
def test_refuses_and_says_why(text: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=re.escape(complaint)):
        parse_duration(text)


@given(st.integers(min_value=0, max_value=10**12))
def test_what_is_written_is_read_again_and_matches_the_published_pattern(milliseconds: int) -> None:
    length = timedelta(milliseconds=milliseconds)
    text = format_duration(length)
    assert parse_duration(text) == length
    assert re.match(PATTERN, text)
