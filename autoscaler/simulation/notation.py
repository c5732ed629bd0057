"""Series as promtool writes them in its unit tests: ``4000+100x20 _x3 5873x10``.

Values stand apart by spaces. ``7`` is one value, ``7x3`` it and three more, ``4000+100x20`` that start and twenty
steps, ``-`` steps down. Where there is no value stands a gap, by what the decision would call it: ``_`` for nothing,
``stale``, ``NaN``, ``Inf``; ``_x3`` are three of them.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Final

from autoscaler.model import GapReason

Value = Fraction | GapReason
"""What a query came to at one instant: a number, or why there is none."""

LONGEST: Final = 1_000_000
"""Values of one series; two years of minutes."""

_GAPS: Final = {
    "_": GapReason.NO_DATA,
    "stale": GapReason.STALE,
    "nan": GapReason.NOT_A_NUMBER,
    "inf": GapReason.INFINITE,
    "+inf": GapReason.INFINITE,
    "-inf": GapReason.INFINITE,
}
_NUMBER: Final = r"(?:\d{1,30}(?:\.\d{0,30})?|\.\d{1,30})(?:[eE][-+]?\d{1,2})?"
_RUN = re.compile(rf"(?P<start>[-+]?{_NUMBER})(?:(?P<step>[-+]{_NUMBER}))?(?:x(?P<times>\d{{1,9}}))?", re.ASCII)
_GAP_RUN = re.compile(r"(?P<gap>_|stale|[-+]?inf|nan)(?:x(?P<times>\d{1,9}))?", re.ASCII | re.IGNORECASE)
_WORD = re.compile(r"\S+")


@dataclass(frozen=True, slots=True)
class Slip:
    """What is wrong with a series, where in it, and the mend."""

    column: int  # from 1
    what: str
    mend: str


def read_series(text: str) -> tuple[tuple[Value, ...], tuple[Slip, ...]]:
    """The values of a series, and every slip in it; with a slip the values are not all there."""
    values: list[Value] = []
    slips: list[Slip] = []
    words = list(_WORD.finditer(text))
    if not words:
        slips.append(Slip(1, "has no value", "write one, like 4000+100x20, or _ for a gap"))
    for word in words:
        run = _run(word[0])
        if isinstance(run, Slip):
            slips.append(Slip(word.start() + run.column, run.what, run.mend))
            continue
        values.extend(value for value, _ in zip(run, range(LONGEST + 1 - len(values)), strict=False))
        if len(values) > LONGEST:
            mend = "write a shorter series, or simulate a file"
            slips.append(Slip(word.start() + 1, f"makes more than {LONGEST:,} values", mend))
            break
    return tuple(values), tuple(slips)


def _run(word: str) -> Iterator[Value] | Slip:
    """The values that one word stands for."""
    gap = _GAP_RUN.fullmatch(word)
    if gap is not None:
        reason = _GAPS[gap["gap"].lower()]
        times = 1 if gap["times"] is None else int(gap["times"])
        return (reason for _ in range(times))
    run = _RUN.fullmatch(word)
    if run is None:
        return _slip(word)
    start, step = Fraction(run["start"]), Fraction(run["step"] or 0)
    if run["times"] is None:
        if run["step"] is not None:
            return Slip(1, f"{_shown(word)} steps, and does not say how often", f"write {word}x10 for ten steps")
        return iter((start,))
    return (start + step * number for number in range(int(run["times"]) + 1))


def _slip(word: str) -> Slip:
    """The likeliest slip of a word that is none."""
    good = max((len(match[0]) for form in (_RUN, _GAP_RUN) if (match := form.match(word))), default=0)
    rest = word[good:]
    column = good + 1 if rest else 1
    if good and rest.startswith(("*", "X", "×")):
        return Slip(column, f"{_shown(word)} repeats by {rest[0]!r}", "write x, like 5873x10")
    if good and (rest.startswith("x") or (rest.isdigit() and "x" in word[:good])):
        what = f"{_shown(word)} does not say how often"
        return Slip(column, what, "write up to nine digits after x, like 5873x10")
    if "," in word or ";" in word:
        return Slip(word.replace(";", ",").index(",") + 1, f"{_shown(word)} has a comma", "put spaces between values")
    return Slip(column, f"{_shown(word)} is not a value", "write 7, 7x10, 4000+100x20, 90-5x10, or _ for a gap")


def _shown(word: str) -> str:
    return repr(word if len(word) <= 40 else word[:40] + "…")
