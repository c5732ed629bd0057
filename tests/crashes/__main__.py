"""Every crash point of every trouble: ``make crashes``, or ``python -m tests.crashes``.

Prints for each trouble and each place in the course the workers that the cloud sold, of those that were asked for and
may have been sold, over all courses in which a replica died (or stood still) there. Ends with 1 if the judge finds
anything wrong. Ctrl-C ends it early, with the table of what was explored by then.
"""

import argparse
import sys
import time
from collections import Counter
from collections.abc import Sequence

from tests.crashes.campaign import Field, explored, fields
from tests.crashes.course import Outcome
from tests.crashes.effects import PLACES
from tests.crashes.troubles import TROUBLES, Call

_MOST_SHOWN = 20


def main() -> int:
    """Explore what the arguments name, and print what was found."""
    parser = argparse.ArgumentParser(prog="make crashes ARGS=…", description=__doc__.split("\n")[0])
    parser.add_argument("--only", default="", metavar="TEXT", help="troubles whose name holds this text")
    parser.add_argument("--no-pairs", action="store_true", help="leave out the courses with two crashes")
    parser.add_argument(
        "--every", type=int, default=1, metavar="N", help="only one of N crash points, others in each part"
    )
    parser.add_argument("--seed", type=int, default=0, help="draws the second crash points of pairs")
    asked = parser.parse_args()
    troubles = [trouble for trouble in TROUBLES if asked.only in trouble.name]
    if not troubles:
        parser.error(f"no trouble's name holds {asked.only!r}; there are: {', '.join(t.name for t in TROUBLES)}")
    begun = time.monotonic()
    todo = fields(troubles, pairs=not asked.no_pairs, seed=asked.seed, every=asked.every)
    found: dict[str, list[Outcome]] = {trouble.name: [] for trouble in troubles}
    done = 0
    try:
        for done, (field, outcomes) in enumerate(explored(todo), 1):
            found[field.trouble.name] += outcomes
            _progress(done, len(todo), field, outcomes, begun)
    except KeyboardInterrupt:
        print(f"stopped after {done} of {len(todo)} parts: what follows is of those alone")
    _table(found)
    wrong = _totals([outcome for outcomes in found.values() for outcome in outcomes], time.monotonic() - begun)
    return 1 if wrong or done < len(todo) else 0


def _progress(number: int, total: int, field: Field, outcomes: Sequence[Outcome], begun: float) -> None:
    wrong = sum(bool(outcome.problems) for outcome in outcomes)
    print(
        f"{number}/{total} after {time.monotonic() - begun:.0f} s: {field.trouble.name}; {field.successor.value}: "
        f"{len(outcomes)} courses" + (f", {wrong} WRONG" if wrong else ""),
        file=sys.stderr,
        flush=True,
    )


def _table(found: dict[str, list[Outcome]]) -> None:
    longest = max(map(len, found))
    columns = ("none", *PLACES)
    print(f"{'workers sold / asked, by crash point':<{longest}}" + "".join(f"{place:>11}" for place in columns))
    for name, outcomes in found.items():
        sold, asked = Counter[str](), Counter[str]()
        for outcome in outcomes:
            place = outcome.points[0].place if outcome.points else "none"
            sold[place] += outcome.verdict.sold
            asked[place] += outcome.verdict.asked
        cells = (f"{sold[place]}/{asked[place]}" if asked[place] else "" for place in columns)
        print(f"{name:<{longest}}" + "".join(f"{cell:>11}" for cell in cells))


def _totals(outcomes: Sequence[Outcome], seconds: float) -> bool:
    wrong = [problem for outcome in outcomes for problem in outcome.problems]
    times = Counter(len(outcome.points) for outcome in outcomes)
    still = sum(bool(outcome.points) and outcome.plan.successor.stands_still for outcome in outcomes)
    pairs = sum(times.values()) - times[0] - times[1]
    orders = sum(len(outcome.verdict.orders) for outcome in outcomes)
    sold = sum(outcome.verdict.sold for outcome in outcomes)
    asked = sum(outcome.verdict.asked for outcome in outcomes)
    calls = Counter(call for outcome in outcomes for call in outcome.verdict.calls)
    print(
        f"{len(outcomes)} courses in {seconds / 60:.0f} min: {times[0]} without a crash, {times[1] - still} with one, "
        f"{pairs} with two, {still} with a replica that stood still and woke"
    )
    print(f"{orders} orders of {sold} workers, {asked} asked for")
    print(f"left to a person: {calls[Call.UNKNOWN]} unknown purchases, {calls[Call.REFUSED]} refusals")
    print(f"wrong: {len(wrong)}")
    for problem in wrong[:_MOST_SHOWN]:
        print(f"  {problem}")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
