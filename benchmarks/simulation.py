"""How fast a simulation is: jumping, tick by tick, and a plain loop of the same arithmetic, side by side.

    python benchmarks/simulation.py [--load FILE.csv] [--days 365]

Shipped policies run over a year of minutes (525,600 ticks). Their load is made from the sample that the project ships
(requests a minute to the site of the 1998 football World Cup; its source is written in the file): each minute of the
year is a minute of the sample, scaled by the hour of the day and the day of the week, its peak near what ``maximum``
workers carry. A CSV of ``unix_seconds,value`` takes the place of the sample in the last rows, as it is. In the worst
case the wanted number changes at every tick and crosses the supply each time, and no window holds that back.

Times are of the process, not of the clock on the wall, so that a busy machine falsifies them less; ratios count more
than numbers. Each row is a process of its own, and memory is its peak when the jumping simulation is done. Tick by tick
and the plain loop run over the first part of the same load.
"""

import argparse
import csv
import math
import resource
import time
from array import array
from collections import deque
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime, timedelta
from multiprocessing import get_context
from pathlib import Path

from autoscaler.policy import PerWorker, Policy, Schedule, Setpoint, Steps
from autoscaler.policy.files import load_policies
from autoscaler.sandbox import recorded_load
from autoscaler.simulation import Load, simulate

POLICIES = Path(__file__).parent.parent / "policies"
START = datetime(2026, 1, 1, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
READY = 4
PART = 5_000  # ticks of the slower ways
AGAIN = 3  # the best of so many counts


def main() -> None:
    """Print a row for each policy and load."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--load", metavar="FILE.csv", help="unix_seconds,value; left out, the sample for 60 days")
    parser.add_argument("--days", type=int, default=365, help="of the year of minutes")
    options = parser.parse_args()
    names = [policy.name for policy in load_policies(POLICIES).policies]
    rows = [(name, "year", options) for name in names]
    rows += [("edge-sites-hangzhou", "worst case", options)]
    rows += [(name, "recording", options) for name in names]
    print(f"{'policy':<22}{'load':<12}{'ticks':>9}{'spans':>8}{'bought':>7}", end="")
    print(f"{'jumping/s':>13}{'by tick/s':>11}{'plain/s':>12}{'ratio':>7}{'MB':>6}")
    for row in rows:
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as alone:
            print(alone.submit(measured, *row).result(), flush=True)


def measured(name: str, kind: str, options: argparse.Namespace) -> str:
    """One row of the table."""
    policy = next(policy for policy in load_policies(POLICIES).policies if policy.name == name)
    if kind == "worst case":
        policy = policy.model_copy(update={"stabilization_window": timedelta(0)})
    load = _load(policy, kind, options)
    simulation = simulate(policy, load, ready=READY)
    jumping = _per_second(load.ticks, lambda: simulate(policy, load, ready=READY))
    megabytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    part = _first(load, PART)
    by_tick = _per_second(part.ticks, lambda: simulate(policy, part, ready=READY, jumping=False), again=1)
    by_loop = _per_second(load.ticks, lambda: plain(policy, load, READY))
    bought = sum(purchase.asked for purchase in simulation.purchases)
    counts = f"{name:<22}{kind:<12}{load.ticks:>9,}{len(simulation.spans):>8,}{bought:>7}"
    return f"{counts}{jumping:>13,.0f}{by_tick:>11,.0f}{by_loop:>12,.0f}{jumping / by_tick:>7.0f}{megabytes:>6.0f}"


def plain(policy: Policy, load: Load, ready: int) -> int:
    """What a script of an afternoon does: floats, no gaps, no verdicts, nothing that fails. Returns what it buys."""
    windows: deque[float] = deque(maxlen=max(1, math.ceil(policy.stabilization_window / load.step)))
    joins, cooldown = (math.ceil(wait / load.step) for wait in (policy.assumed_join, policy.cooldown))
    headroom, more = 1 + float(policy.headroom.ratio), policy.headroom.workers
    totals = [
        (load.series[check.name], float(check.load_per_worker if isinstance(check, PerWorker) else check.target))
        for check in policy.checks
        if isinstance(check, PerWorker | Setpoint)
    ]
    steps = [
        (load.series[check.name], [(float(step.at), step.add or 0) for step in check.steps])
        for check in policy.checks
        if isinstance(check, Steps)
    ]
    supply, again, bought = ready, 0, 0
    for tick in range(load.ticks):
        wanted = max((values[tick] / each * headroom + more for values, each in totals), default=0.0)
        for values, steps_of in steps:
            base = supply if tick >= again + joins else supply - 1
            for at, add in steps_of:
                if values[tick] >= at:
                    wanted = max(wanted, base + add)
        windows.append(wanted)
        missing = math.ceil(min(windows)) - supply
        if missing > 0 and tick >= again:
            add = min(missing, policy.limits.per_action, policy.limits.maximum - supply)
            if add > 0:
                supply, again, bought = supply + add, tick + cooldown, bought + add
    return bought


def _per_second(ticks: int, run: Callable[[], object], again: int = AGAIN) -> float:
    best = math.inf
    for _ in range(again):
        begun = time.process_time()
        run()
        best = min(best, time.process_time() - begun)
    return ticks / best


def _load(policy: Policy, kind: str, options: argparse.Namespace) -> Load:
    if kind == "recording":
        shape = _recording(options.load) if options.load else _looped(60)
    elif kind == "worst case":
        # Far below the supply and beyond `maximum` by turns, another number each time.
        most = policy.limits.maximum
        shape = [2 * most - tick % 5 if tick % 2 else 1 + tick % 3 for tick in range(options.days * 1440)]
    else:
        shape = _looped(options.days)
    peak = max(shape)
    series = {}
    for check in policy.checks:
        if not isinstance(check, Schedule):
            each = _carried(check) * policy.limits.maximum / peak * (2 if kind == "worst case" else 0.9)
            series[check.name] = array("d", [float(f"{value * each:.6g}") for value in shape])
    return Load(START, MINUTE, len(shape), series, source="benchmarks/simulation.py")


def _carried(check: PerWorker | Setpoint | Steps) -> float:
    """The load that one worker carries; of steps, so much that the peak of ``maximum`` workers passes most of them."""
    if isinstance(check, PerWorker):
        return float(check.load_per_worker)
    return float(check.target) if isinstance(check, Setpoint) else float(check.steps[-1].at) / 12


def _looped(days: int) -> list[float]:
    """The sample, minute by minute, with a daily and a weekly course."""
    sample = [value for _, value in recorded_load()]
    mean = sum(sample) / len(sample)
    hours = [1 - 0.8 * math.cos(2 * math.pi * (hour - 4) / 24) for hour in range(24)]
    week = [1.0, 1.0, 1.0, 1.0, 1.15, 1.3, 1.2]
    return [
        (0.8 + 0.2 * sample[tick % len(sample)] / mean) * hours[tick // 60 % 24] * week[tick // 1440 % 7]
        for tick in range(days * 1440)
    ]


def _recording(path: str) -> list[float]:
    with open(path, encoding="utf-8", newline="") as lines:
        rows = csv.reader(line for line in lines if not line.startswith("#"))
        next(rows)
        return [float(value) for _, value in rows]


def _first(load: Load, ticks: int) -> Load:
    ticks = min(ticks, load.ticks)
    return Load(load.start_at, load.step, ticks, {name: values[:ticks] for name, values in load.series.items()})


if __name__ == "__main__":
    main()
