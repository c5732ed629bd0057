"""The spans of a simulation, kept as a few numbers each and made when they are asked for."""

from array import array
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import overload

from autoscaler.facts import Reason
from autoscaler.model import Outcome
from autoscaler.simulation.load import Load

_REASONS = tuple(Reason)
_CODES = {reason: code for code, reason in enumerate(_REASONS)}


@dataclass(frozen=True, slots=True)
class Span:
    """Consecutive evaluations that came to the same for the same reason; one that bought stands alone."""

    start_at: datetime  # of the first evaluation
    end_at: datetime  # one step after the last
    ticks: int
    reason: Reason
    add: int  # workers bought; 0 unless the reason is one to buy

    @property
    def outcome(self) -> Outcome:
        """The outcome of these evaluations."""
        return self.reason.outcome


class Spans(Sequence[Span]):
    """Spans in the order of time, without a hole."""

    def __init__(self, load: Load) -> None:
        self._load = load
        self._starts = array("q")
        self._codes = array("B")
        self._adds = array("q")
        self._end = 0

    def add(self, start: int, end: int, reason: Reason, add: int = 0) -> None:
        """Append the evaluations of the ticks from ``start``, where the last span ends, up to ``end``."""
        code = _CODES[reason]
        if not self._codes or self._codes[-1] != code or reason.outcome is Outcome.SCALE_OUT:
            self._starts.append(start)
            self._codes.append(code)
            self._adds.append(add)
        self._end = end

    def __len__(self) -> int:
        return len(self._starts)

    @overload
    def __getitem__(self, index: int) -> Span: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[Span]: ...

    def __getitem__(self, index: int | slice) -> Span | Sequence[Span]:
        if isinstance(index, slice):
            return [self[n] for n in range(*index.indices(len(self)))]
        number = range(len(self))[index]
        start = self._starts[number]
        end = self._starts[number + 1] if number + 1 < len(self) else self._end
        return Span(
            start_at=self._load.at(start),
            end_at=self._load.at(end),
            ticks=end - start,
            reason=_REASONS[self._codes[number]],
            add=self._adds[number],
        )

    def at(self, tick: int) -> Span:
        """The span that holds a tick."""
        return self[bisect_right(self._starts, tick) - 1]

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Spans):
            return NotImplemented
        mine = (self._load.start_at, self._load.step, self._starts, self._codes, self._adds, self._end)
        others = (other._load.start_at, other._load.step, other._starts, other._codes, other._adds, other._end)
        return mine == others

    __hash__ = None  # type: ignore[assignment]  # it grows
