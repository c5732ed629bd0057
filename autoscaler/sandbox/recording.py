"""Series of a replayed Prometheus: recorded samples, or values computed when they are asked for.

A series is named as PromQL writes it, ``sessions`` or ``sessions{site="a"}``.
"""

from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from csv import reader
from dataclasses import dataclass
from datetime import datetime, timedelta
from importlib.resources import files

import promql_parser as promql

from autoscaler.sandbox.vectors import Labels, Samples

LOOKBACK = 300.0  # seconds after which a sample is stale: Prometheus's default
COMPUTED_EVERY = 15.0  # seconds between the samples of a computed series

Computed = Callable[[float], float | Sequence[float] | None]
"""Unix seconds to the value then. Several values are a series each, told apart by ``worker``; None is no sample."""


@dataclass(frozen=True, slots=True)
class Recording:
    """The series by metric and labels. Raises ``ValueError`` for a name that is none."""

    series: Mapping[str, Mapping[Labels, Samples | Computed]]

    @classmethod
    def of(cls, series: Mapping[str, Samples | Computed]) -> "Recording":
        """The recording of series given by their names."""
        metrics: dict[str, dict[Labels, Samples | Computed]] = {}
        for name, samples in series.items():
            selector = promql.parse(name)
            if not isinstance(selector, promql.VectorSelector) or selector.name is None:
                raise ValueError(f"{name} is not the name of a series")
            labels = frozenset((matcher.name, matcher.value) for matcher in selector.matchers.matchers)
            metrics.setdefault(selector.name, {})[labels] = samples
        return cls(metrics)

    def newest(self, name: str, at: float) -> dict[Labels, tuple[float, float]]:
        """The newest sample up to ``at`` of each series of a metric that is not stale."""
        found: dict[Labels, tuple[float, float]] = {}
        for labels, samples in self.series.get(name, {}).items():
            if callable(samples):
                found |= {key: (at, value) for key, value in _computed(samples, labels, at).items()}
            else:
                position = bisect_right(samples, at, key=lambda sample: sample[0])
                if position and samples[position - 1][0] > at - LOOKBACK:
                    sampled_at, value = samples[position - 1]
                    found[labels] = sampled_at, float(value)
        return found

    def samples(self, name: str, start: float, end: float) -> dict[Labels, Samples]:
        """All samples of a metric in (start, end]."""
        found: dict[Labels, list[tuple[float, float]]] = {}
        for labels, samples in self.series.get(name, {}).items():
            if callable(samples):
                for number in range(int((end - start) / COMPUTED_EVERY), -1, -1):
                    at = end - number * COMPUTED_EVERY
                    for key, value in _computed(samples, labels, at).items():
                        if at > start:
                            found.setdefault(key, []).append((at, value))
            else:
                inside = [(at, float(value)) for at, value in samples if start < at <= end]
                if inside:
                    found[labels] = inside
        return dict(found)


def recorded_load() -> Samples:
    """Requests per minute to a busy site, a sample a minute for three hours, around a rise to the sixfold.

    Real load of 1998-06-26; source and licence are written in the file.
    """
    text = files("autoscaler.sandbox").joinpath("data/worldcup98.csv").read_text(encoding="utf-8")
    rows = reader(line for line in text.splitlines() if not line.startswith("#"))
    next(rows)
    return [(float(at), float(value)) for at, value in rows]


def replayed(samples: Samples, *, start: datetime, every: timedelta) -> Samples:
    """The same values, one each ``every``, from ``start`` on."""
    begin, step = start.timestamp(), every.total_seconds()
    return [(begin + number * step, value) for number, (_, value) in enumerate(samples)]


def _computed(compute: Computed, labels: Labels, at: float) -> dict[Labels, float]:
    value = compute(at)
    if value is None:
        return {}
    if isinstance(value, Sequence):
        return {labels | {("worker", str(number))}: float(each) for number, each in enumerate(value)}
    return {labels: float(value)}
