"""Jumping: a simulation that decides only where something can change, and comes to the same as deciding every tick.

Between two events (a worker that joins, a purchase settled, an override's end, a fault, ``recheck_at``) everything but
the readings stays, and which reason a decision has depends on the readings by two things alone: whether gaps hold
demand, and whether the smallest demand of the stabilization window is more than the supply. How much more does not
matter: a rule that leaves no worker says no to any number, and one that leaves some says no to none. So the recorded
values of a stretch are compared with one double for each check, the least that wants more than the supply, and the
rules are asked once for each outcome until time alone may change it.
"""

from bisect import bisect_right
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from fractions import Fraction
from math import isnan
from sys import float_info

from autoscaler.decision import Evaluation, decide, missing, recheck_at
from autoscaler.facts import Draft, Facts, Reason
from autoscaler.ledger.sightings import GONE_AFTER
from autoscaler.model import Capacity, Gap, Outcome, Run
from autoscaler.policy import Schedule
from autoscaler.purchase import moves_at
from autoscaler.rules import HOLE_PERIODS, demand
from autoscaler.simulation.course import Course
from autoscaler.simulation.readings import Conditions
from autoscaler.simulation.spans import Spans
from autoscaler.strategy import Wish, evaluate
from autoscaler.supply import Supply

# Ticks compared at once: few where a stretch may end soon, many in a long one.
_FIRST_CHUNK, _LARGEST_CHUNK = 1024, 8192
# A demand that no reading comes near, for a window in which nothing held demand back.
_ABOVE_ALL = Fraction(10**12)
_NO, _YES = b"\x00", b"\x01"
_LARGEST = float_info.max


@dataclass(slots=True)
class _Stretch:
    """Ticks over which everything but the readings stays as it is."""

    start: int
    facts: Facts  # at its start, without readings and runs
    given: Conditions
    supply: Supply | Gap
    needed: Reason | None = None  # what the rules say where more is wanted than the supply; None: not asked
    needed_until: int = 0  # the first tick at which time alone may change that


def jump(course: Course, spans: Spans, told: Callable[[int], None]) -> Callable[[int], Evaluation]:
    """Run a course to its end, and fill ``spans``. Returns what evaluates any tick of it again."""
    jumps = _Jumps(course, spans)
    tick = 0
    while tick < course.load.ticks:
        tick = jumps.go_on(tick)
        told(tick)
    return jumps.evaluation


class _Jumps:
    def __init__(self, course: Course, spans: Spans) -> None:
        self._course = course
        self._spans = spans
        self._load = course.load
        self._policy = course.policy
        self._readings = course.readings
        self._stretches: list[_Stretch] = []
        self._starts: list[int] = []
        self._turned = -1  # the newest tick the cloud was looked at
        self._stirred = 0  # the next tick at which the facts themselves may change
        window, step = course.policy.stabilization_window, course.load.step
        self._window = -(-window // step)  # ticks whose demand counts, the current one included; 0: no window
        required = {check.name for check in course.policy.checks if not isinstance(check, Schedule) and check.required}
        self._required = [check.name in required for check in self._readings.checks]
        # For each check whether the tick is a gap, as bytes of 0 and 1; None: it never is one.
        self._unrecorded = [
            None if values is None or _YES not in (gaps := bytes(map(isnan, values))) else gaps
            for values in self._readings.values
        ]
        edges = [self._after(at) for order in course.overrides for at in (order.starts_at, order.ends_at)]
        self._edges = sorted(edge for edge in edges if edge > 0)

    # --- the way forward ---

    def go_on(self, tick: int) -> int:
        """Decide from ``tick`` until something changes; the tick at which it does."""
        facts, moved = self._facts(tick)
        # Checks that cannot be read may forbid to buy whatever the others want.
        draft = missing(replace(facts, readings=self._readings.unread(self._course.cloud.unread())))
        given = self._course.conditions(draft.fleet)
        stretch = _Stretch(tick, facts, given, draft.supply)
        self._stretches.append(stretch)
        self._starts.append(tick)
        self._stirred = tick + 1 if moved else max(tick + 1, min(self._stirs(facts)))
        recheck = recheck_at(draft, facts)
        end = self._stirred if recheck is None else min(self._stirred, self._after(recheck))
        if draft.reason in (Reason.ENOUGH, Reason.GAP):
            return self._scan(stretch, end)
        # Something else than load decides: a target not reached, an order, workers that cannot be counted.
        end, _ = self._need(stretch, tick, end)
        return end

    def _facts(self, tick: int) -> tuple[Facts, bool]:
        """What is known at a tick but for readings and runs, and whether a purchase moved on at it."""
        if tick < self._stirred:  # time alone has passed
            return replace(self._stretches[-1].facts, now=self._load.at(tick)), False
        moved = self._turn_to(tick)
        facts = self._course.facts()
        return replace(facts, history=replace(facts.history, runs=())), moved

    def _turn_to(self, tick: int) -> bool:
        # A look tells when a worker was last seen ready only if there was one right before.
        if self._turned < tick - 1:
            self._course.turn_to(tick - 1)
        self._course.turn_to(tick)
        self._turned = tick
        return self._course.settle()

    def _stirs(self, facts: Facts) -> Iterator[int]:
        """The ticks at which the facts themselves may change, besides the readings."""
        yield self._load.ticks
        yield self._course.cloud.next_change()
        later = bisect_right(self._edges, self._starts[-1])
        yield from self._edges[later : later + 1]
        for purchase in facts.history.purchases:
            yield from (self._after(at) for at in moves_at(purchase) if at > facts.now)
        if isinstance(facts.capacity, Capacity):
            for worker in facts.capacity.workers:
                if not worker.listed:  # in the end it is forgotten
                    yield self._after(max(worker.last_seen_at + GONE_AFTER, facts.now + self._load.step))

    def _scan(self, stretch: _Stretch, end: int) -> int:
        start, chunk = stretch.start, _FIRST_CHUNK
        while start < end:
            until = min(start + chunk, end)
            turned = self._scan_chunk(stretch, start, until)
            if turned is not None:
                return turned
            start, chunk = until, min(2 * chunk, _LARGEST_CHUNK)
        return end

    def _scan_chunk(self, stretch: _Stretch, start: int, end: int) -> int | None:
        """Add the spans from ``start`` to ``end``; the tick after the one that bought, if one did."""
        assert isinstance(stretch.supply, Supply)
        before = max(0, start - max(0, self._window - 1))
        asks, held = self._asks(before, end, stretch.supply.total)
        tick = start
        while tick < end:
            position = tick - before
            if held is not None and held[position]:
                until = _next(held, _NO, position, before, end)
                self._spans.add(tick, until, Reason.GAP)
            elif not asks[position]:
                until = _next(asks, _YES, position, before, end)
                if held is not None:
                    until = min(until, _next(held, _YES, position, before, end))
                self._spans.add(tick, until, Reason.ENOUGH)
            else:
                until = _next(asks, _NO, position, before, end)
                since = before + asks.rfind(_NO, 0, position) + 1
                # No window is full before the watch is as long as it.
                full = max(since, 1) + self._window - 1 if self._window else since
                if tick < full:
                    until = min(until, full)
                    self._spans.add(tick, until, Reason.STABILIZATION)
                else:
                    until, bought = self._need(stretch, tick, until)
                    if bought:
                        return until
            tick = until
        return None

    def _need(self, stretch: _Stretch, tick: int, until: int) -> tuple[int, bool]:
        """More is wanted than the supply from ``tick`` to ``until``: ask the rules, and buy where they say so.

        Returns the tick up to which that is done, and whether anything was bought.
        """
        if stretch.needed is None or tick >= stretch.needed_until:
            decision = decide(self._calm(stretch, tick))
            stretch.needed = decision.reason
            recheck_at = decision.recheck_at
            stretch.needed_until = self._load.ticks if recheck_at is None else self._after(recheck_at)
        if stretch.needed.outcome is not Outcome.SCALE_OUT:
            until = min(until, stretch.needed_until)
            self._spans.add(tick, until, stretch.needed)
            return until, False
        if self._turned < tick:
            self._turn_to(tick)
        self._stirred = tick + 1
        facts = replace(self._course.facts(), readings=self._readings.at(tick, self._load.at(tick), stretch.given))
        decision = self._course.buy(facts, self._runs(tick)).decision
        assert decision.reason is stretch.needed, f"{decision.reason} where {stretch.needed} was foreseen"
        self._spans.add(tick, tick + 1, decision.reason, decision.add)
        return tick + 1, True

    def _calm(self, stretch: _Stretch, tick: int) -> Facts:
        """The facts of a tick as if its window had seen nothing less: what then holds a purchase back is no window."""
        now, policy = self._load.at(tick), self._policy
        run = Run(policy.version, _ABOVE_ALL, now - policy.stabilization_window, now - self._load.step, 1)
        return replace(
            stretch.facts,
            now=now,
            readings=self._readings.at(tick, now, stretch.given),
            history=replace(stretch.facts.history, runs=(run,)),
        )

    # --- what the readings want ---

    def _asks(self, start: int, end: int, supply: int) -> tuple[bytes, bytes | None]:
        """For each tick whether it wants more than ``supply``, and whether gaps hold its demand (None: nowhere)."""
        asks, held = b"", b""
        any_held = False
        for stretch, since, until in self._between(start, end):
            wants, gaps = self._asks_within(stretch, since, until, supply)
            asks += wants
            held += bytes(until - since) if gaps is None else gaps
            any_held = any_held or gaps is not None
        return asks, held if any_held else None

    def _asks_within(self, stretch: _Stretch, start: int, end: int, supply: int) -> tuple[bytes, bytes | None]:
        length, given, readings = end - start, stretch.given, self._readings
        wants = 0
        required_gaps, all_gaps = 0, -1
        for number, (values, unrecorded) in enumerate(zip(readings.values, self._unrecorded, strict=True)):
            if values is None or readings.is_gap(number, given):
                if self._required[number]:
                    return bytes(length), _YES * length
                continue
            least = readings.least(number, supply, given)
            if least < _LARGEST:
                wants |= int.from_bytes(bytes(map(least.__le__, values[start:end])), "little")
            gaps = 0 if unrecorded is None else int.from_bytes(unrecorded[start:end], "little")
            all_gaps &= gaps
            if self._required[number]:
                required_gaps |= gaps
        if all_gaps == -1:  # no check has a reading, if there is any check
            return bytes(length), _YES * length if readings.checks else None
        held = required_gaps | all_gaps
        if not held:
            return wants.to_bytes(length, "little"), None
        return (wants & ~held).to_bytes(length, "little"), held.to_bytes(length, "little")

    def _between(self, start: int, end: int) -> Iterator[tuple[_Stretch, int, int]]:
        """The stretches that hold the ticks from ``start`` to ``end``, each with its part of them."""
        number = bisect_right(self._starts, start) - 1
        while start < end:
            after = self._starts[number + 1] if number + 1 < len(self._starts) else end
            until = min(end, after)
            yield self._stretches[number], start, until
            start, number = until, number + 1

    # --- any tick again ---

    def evaluation(self, tick: int) -> Evaluation:
        """The evaluation of a tick that was passed, decided again."""
        stretch = self._stretches[bisect_right(self._starts, tick) - 1]
        now = self._load.at(tick)
        facts = replace(
            stretch.facts,
            now=now,
            readings=self._readings.at(tick, now, stretch.given),
            capacity=_seen_at(stretch.facts.capacity, now),
            history=replace(stretch.facts.history, runs=self._runs(tick)),
        )
        return Evaluation(facts, decide(facts))

    def _runs(self, tick: int) -> tuple[Run, ...]:
        """The runs that lead up to a tick, as far back as its window looks."""
        if not self._window:
            return ()
        version, runs = self._policy.version, list[Run]()
        oldest = self._load.at(tick) - self._policy.stabilization_window - HOLE_PERIODS * self._load.step
        first = max(0, self._after(oldest))
        for stretch, start, end in self._between(first, tick):
            for earlier in range(start, end):
                at, wanted = self._load.at(earlier), self._demand(stretch, earlier)
                if runs and runs[-1].wanted == wanted:
                    runs[-1] = replace(runs[-1], last_at=at, n=runs[-1].n + 1)
                else:
                    runs.append(Run(version, wanted, at, at, 1))
        return tuple(runs)

    def _demand(self, stretch: _Stretch, tick: int) -> Fraction | None:
        given, headroom = stretch.given, self._policy.headroom
        readings = self._readings.at(tick, self._load.at(tick), given)
        wishes: list[tuple[str, Wish | Gap]] = [
            (check.name, evaluate(check, reading, given.fleet, headroom))
            for check, reading in zip(self._readings.checks, readings, strict=True)
        ]
        draft = Draft(supply=stretch.supply, fleet=given.fleet, purchases=(), wishes=tuple(wishes))
        return demand(draft, stretch.facts).demand

    def _after(self, instant: datetime) -> int:
        """The first tick at an instant or after it."""
        return -((self._load.start_at - instant) // self._load.step)


def _next(marks: bytes, mark: bytes, position: int, first: int, end: int) -> int:
    """The tick of the next ``mark`` from a position of ``marks`` on, which begin at tick ``first``; else ``end``."""
    found = marks.find(mark, position)
    return end if found < 0 else first + found


def _seen_at(capacity: Capacity | Gap, now: datetime) -> Capacity | Gap:
    """A capacity that has not changed, as a look at ``now`` would give it."""
    if isinstance(capacity, Gap) or capacity.at == now:
        return capacity
    workers = tuple(
        replace(worker, last_seen_at=now, last_ready_at=now if worker.ready else worker.last_ready_at)
        if worker.listed
        else worker
        for worker in capacity.workers
    )
    counted = None if capacity.counted is None else replace(capacity.counted, at=now)
    return replace(capacity, at=now, workers=workers, counted=counted)
