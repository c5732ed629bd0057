"""Prometheus's duration grammar, read and written: ``1h30m``, ``90s``, ``2w``, ``500ms``.

An operator knows one way to write durations, the one of PromQL and alert rules, so policy files, commands and
sentences use it too: whole numbers with a unit each, the largest unit first, every unit at most once.
"""

import re
from datetime import timedelta
from itertools import pairwise
from typing import Final

PATTERN: Final = r"^(0|(?=\d)(\d+y)?(\d+w)?(\d+d)?(\d+h)?(\d+m)?(\d+s)?(\d+ms)?)$"
"""The grammar as a regular expression that Python, JSON Schema and browsers read alike."""

_MILLISECONDS: Final = {
    "y": 365 * 86_400_000,
    "w": 7 * 86_400_000,
    "d": 86_400_000,
    "h": 3_600_000,
    "m": 60_000,
    "s": 1_000,
    "ms": 1,
}
_GRAMMAR = re.compile(PATTERN, re.ASCII)
_PART = re.compile(r"(\d+)([a-z]*)", re.ASCII)
# Prometheus keeps durations as nanoseconds in 64 bits; longer ones it refuses as out of range.
_LONGEST: Final = timedelta(microseconds=2**63 // 1000)
_LONGEST_TEXT: Final = 64
# Years, weeks and days of odd lengths are written in a smaller unit: 90d, not 12w6d (as Prometheus prints them).
_ONLY_WHOLE: Final = frozenset({"y", "w"})


def parse_duration(text: str) -> timedelta:
    """The length of time that ``text`` names, to the millisecond; ``0`` needs no unit.

    Raises ValueError, in words an operator can act on, for everything that Prometheus does not read.
    """
    if len(text) > _LONGEST_TEXT or not _GRAMMAR.match(text) or text.endswith("\n"):
        raise ValueError(_complaint(text))
    milliseconds = sum(int(number) * _MILLISECONDS[unit] for number, unit in _PART.findall(text) if unit)
    if milliseconds > _LONGEST // timedelta(milliseconds=1):
        raise ValueError(f"{text!r} is longer than 292 years")
    return timedelta(milliseconds=milliseconds)


def format_duration(duration: timedelta) -> str:
    """``duration`` as Prometheus prints it: ``1h30m``, ``90d``, ``0s``; below a millisecond it is rounded.

    A negative one, which the grammar does not have, is printed with a minus for the sake of messages.
    """
    left = round(duration / timedelta(milliseconds=1))
    if left == 0:
        return "0s"
    parts = ["-"] if left < 0 else []
    left = abs(left)
    for unit, length in _MILLISECONDS.items():
        if left >= length and not (unit in _ONLY_WHOLE and left % length):
            parts.append(f"{left // length}{unit}")
            left %= length
    return "".join(parts)


def _complaint(text: str) -> str:
    """What is wrong with ``text``, the likeliest slip first."""
    if len(text) > _LONGEST_TEXT:
        return "this is too long for a duration; write it like 1h30m"
    if not text.strip():
        return "a duration is missing; write it like 1h30m"
    if text.startswith("-"):
        return f"{text!r} is negative"
    if re.fullmatch(r"\d+", text, re.ASCII):
        return f"{text!r} has no unit; write {text}s, {text}m or {text}h"
    if "." in text or "," in text:
        return f"{text!r} has a fraction; write whole numbers, like 1h30m for 1.5h"
    parts = _PART.findall(text)
    units = [unit for _, unit in parts]
    if "".join(number + unit for number, unit in parts) == text and all(unit in _MILLISECONDS for unit in units):
        if len(set(units)) < len(units):
            return f"{text!r} names a unit twice"
        order = list(_MILLISECONDS)
        if any(order.index(former) > order.index(latter) for former, latter in pairwise(units)):
            return f"{text!r} has its units in the wrong order; the largest comes first, like 1h30m"
    return f"{text!r} is not a duration; write it like 1h30m, with the units y w d h m s ms"
