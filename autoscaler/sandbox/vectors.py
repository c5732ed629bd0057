"""Instant vectors and what PromQL does with them: labels, matching, aggregation, operators.

All as Prometheus does it: floating-point arithmetic that never raises, names dropped by whatever changes a value.
"""

import math
import operator
import re
from collections.abc import Callable, Iterable, Mapping, Sequence

import promql_parser as promql

Labels = frozenset[tuple[str, str]]
Samples = Sequence[tuple[float, float]]  # unix seconds and value, rising
Vector = dict[Labels, float]
Matrix = dict[Labels, Samples]
Key = Callable[[Labels], Labels]

NO_LABELS: Labels = frozenset()


class Ambiguous(Exception):
    """Two series on one side of an operator, or of a result, have the same labels."""


def _divide(one: float, other: float) -> float:
    if other == 0:
        return math.nan if one == 0 or math.isnan(one) else math.copysign(math.inf, one) * math.copysign(1, other)
    return one / other


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values) if all(map(math.isfinite, values)) else sum(values) / len(values)


def _largest(values: Sequence[float]) -> float:
    return max((value for value in values if not math.isnan(value)), default=math.nan)


def _smallest(values: Sequence[float]) -> float:
    return min((value for value in values if not math.isnan(value)), default=math.nan)


AGGREGATIONS: Mapping[str, Callable[[Sequence[float]], float]] = {
    "sum": lambda values: float(sum(values)),
    "avg": _mean,
    "max": _largest,
    "min": _smallest,
    "count": lambda values: float(len(values)),
    "group": lambda _: 1.0,
}
OVER_TIME: Mapping[str, Callable[[Sequence[float]], float]] = {
    **{name: AGGREGATIONS[name] for name in ("sum", "avg", "max", "min", "count")},
    "last": lambda values: values[-1],
    "present": lambda _: 1.0,
}
ARITHMETIC: Mapping[str, Callable[[float, float], float]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": _divide,
}
COMPARISONS: Mapping[str, Callable[[float, float], bool]] = {
    "==": operator.eq,
    "!=": operator.ne,
    ">": operator.gt,
    "<": operator.lt,
    ">=": operator.ge,
    "<=": operator.le,
}


def only(labels: Labels, names: Iterable[str]) -> Labels:
    """The labels of these names."""
    kept = set(names)
    return frozenset(label for label in labels if label[0] in kept)


def without(labels: Labels, names: Iterable[str]) -> Labels:
    """The labels of all other names."""
    dropped = set(names)
    return frozenset(label for label in labels if label[0] not in dropped)


def unnamed(labels: Labels) -> Labels:
    """The labels without the metric's name."""
    return without(labels, ("__name__",))


def matches(matcher: promql.Matcher, labels: Labels) -> bool:
    """Whether a selector's matcher takes a series; a missing label is an empty one."""
    value = dict(labels).get(matcher.name, "")
    match matcher.op:
        case promql.MatchOp.Equal:
            return value == matcher.value
        case promql.MatchOp.NotEqual:
            return value != matcher.value
        case promql.MatchOp.Re:
            return re.fullmatch(matcher.value, value) is not None
        case _:
            return re.fullmatch(matcher.value, value) is None


def set_operation(name: str, left: Vector, right: Vector, key: Key) -> Vector:
    """``and``, ``or`` and ``unless``."""
    here, there = set(map(key, left)), set(map(key, right))
    if name == "or":
        return {**left, **{labels: value for labels, value in right.items() if key(labels) not in here}}
    return {labels: value for labels, value in left.items() if (key(labels) in there) == (name == "and")}


def matched(left: Vector, right: Vector, key: Key) -> list[tuple[Labels, Labels, float, float]]:
    """Pairs of series that match one to one: the left one's labels, the labels matched on, and both values."""
    by_key: dict[Labels, float] = {}
    for labels, value in right.items():
        if key(labels) in by_key:
            raise Ambiguous("found duplicate series for the match group on the right hand-side of the operation")
        by_key[key(labels)] = value
    if len(set(map(key, left))) < len(left):
        raise Ambiguous("multiple matches for labels: many-to-one matching must be explicit")
    return [
        (labels, key(labels), value, by_key[key(labels)]) for labels, value in left.items() if key(labels) in by_key
    ]


def label_replace(vector: Vector, target: str, replacement: str, source: str, pattern: str) -> Vector:
    """Set ``target`` to ``replacement``, ``$1`` being a group, where the whole of ``source`` matches ``pattern``.

    Raises ``ValueError`` for a pattern that is none, ``Ambiguous`` where two series become one.
    """
    try:
        regex = re.compile(pattern)
    except re.error as error:
        raise ValueError(f"invalid regular expression in label_replace(): {error}") from None
    result: Vector = {}
    for labels, value in vector.items():
        found = regex.fullmatch(dict(labels).get(source, ""))
        if found is not None:
            text = _expanded(replacement, found)
            labels = without(labels, (target,)) | ({(target, text)} if text else frozenset())
        if labels in result:
            raise Ambiguous("vector cannot contain metrics with the same labelset")
        result[labels] = value
    return result


def _expanded(template: str, found: re.Match[str]) -> str:
    """The template with ``$1``, ``$name`` and ``${name}`` filled in; a group that there is not is empty."""
    groups = {str(number): text for number, text in enumerate((found[0], *found.groups()))} | found.groupdict()
    return re.sub(r"\$(?:(\w+)|\{(\w+)\})", lambda name: groups.get(name[1] or name[2]) or "", template)
