"""Evaluates the part of PromQL that load queries are written in, over samples from anywhere.

Instant and range selectors, subqueries, the operators and the functions named here and in ``vectors``; everything
else is refused by name, as ``Unsupported``, so that a demo never shows a number that a Prometheus would not give. A
range is open at its start, as since Prometheus 3.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Protocol, TypeVar

import promql_parser as promql

from autoscaler.sandbox.vectors import (
    AGGREGATIONS,
    ARITHMETIC,
    COMPARISONS,
    NO_LABELS,
    OVER_TIME,
    Key,
    Labels,
    Matrix,
    Samples,
    Vector,
    label_replace,
    matched,
    matches,
    only,
    set_operation,
    unnamed,
    without,
)

SUBQUERY_STEP = 60.0  # seconds between a subquery's values where it names no step: the default evaluation interval

_T = TypeVar("_T")

Value = float | str | Vector | Matrix


class Unsupported(Exception):
    """The query is not one, or uses what is not evaluated here; the message is for the person who wrote it."""


class Source(Protocol):
    """Where samples come from: the series of a metric by the labels beside its name."""

    def newest(self, name: str, at: float) -> Mapping[Labels, tuple[float, float]]:
        """The newest sample up to ``at`` of each series that has not ended before."""
        ...

    def samples(self, name: str, start: float, end: float) -> Mapping[Labels, Samples]:
        """All samples in (start, end]."""
        ...


@dataclass(frozen=True, slots=True)
class Evaluator:
    """Evaluates expressions at an instant."""

    source: Source

    def evaluate(self, query: str, at: float) -> Value:
        """The value of a query at ``at``, unix seconds. Raises ``Unsupported``."""
        try:
            expression = promql.parse(query)
        except ValueError as error:
            raise Unsupported(f"parse error: {error}") from None
        return self._value(expression, at)

    def _value(self, expression: object, at: float) -> Value:
        match expression:
            case promql.NumberLiteral() | promql.StringLiteral():
                return expression.val
            case promql.ParenExpr():
                return self._value(expression.expr, at)
            case promql.VectorSelector():
                return {labels: value for labels, (_, value) in self._instant(expression, at).items()}
            case promql.MatrixSelector():
                return self._range(expression, at)
            case promql.SubqueryExpr():
                return self._subquery(expression, at)
            case promql.UnaryExpr():
                return self._negated(expression, at)
            case promql.AggregateExpr():
                return self._aggregate(expression, at)
            case promql.BinaryExpr():
                return self._binary(expression, at)
            case promql.Call():
                return self._call(expression, at)
        raise Unsupported(f"{type(expression).__name__} is not supported by the sandbox")

    def _vector(self, expression: object, at: float) -> Vector:
        value = self._value(expression, at)
        if not isinstance(value, dict):
            raise Unsupported(f"expected an instant vector, got {type(value).__name__}")
        return {labels: each for labels, each in value.items() if isinstance(each, float)}

    def _scalar(self, expression: object, at: float) -> float:
        value = self._value(expression, at)
        if not isinstance(value, float):
            raise Unsupported(f"expected a scalar, got {type(value).__name__}")
        return value

    def _matrix(self, expression: object, at: float) -> Matrix:
        value = self._value(expression, at)
        if not isinstance(value, dict):
            raise Unsupported("expected a range vector")
        return {labels: each for labels, each in value.items() if not isinstance(each, float)}

    def _instant(self, selector: promql.VectorSelector, at: float) -> dict[Labels, tuple[float, float]]:
        return _selected(selector, self.source.newest(_metric(selector), at - _seconds(selector.offset)))

    def _range(self, expression: promql.MatrixSelector, at: float) -> Matrix:
        selector = expression.vector_selector
        end = at - _seconds(selector.offset)
        start = end - _seconds(expression.range)
        return _selected(selector, self.source.samples(_metric(selector), start, end))

    def _subquery(self, subquery: promql.SubqueryExpr, at: float) -> Matrix:
        if subquery.at is not None:
            raise Unsupported("@ is not supported by the sandbox")
        end = at - _seconds(subquery.offset)
        start = end - _seconds(subquery.range)
        step = _seconds(subquery.step) or SUBQUERY_STEP
        matrix: dict[Labels, list[tuple[float, float]]] = defaultdict(list)
        for number in range(math.floor(start / step) + 1, math.floor(end / step) + 1):
            instant = number * step
            value = self._value(subquery.expr, instant)
            vector = {NO_LABELS: value} if isinstance(value, float) else self._vector(subquery.expr, instant)
            for labels, each in vector.items():
                matrix[labels].append((instant, each))
        return dict(matrix)

    def _negated(self, expression: promql.UnaryExpr, at: float) -> float | Vector:
        value = self._value(expression.expr, at)
        if isinstance(value, float):
            return -value
        return {unnamed(labels): -each for labels, each in self._vector(expression.expr, at).items()}

    def _aggregate(self, expression: promql.AggregateExpr, at: float) -> Vector:
        name = str(expression.op)
        if name not in AGGREGATIONS:
            raise Unsupported(f"aggregation {name} is not supported by the sandbox")
        modifier = expression.modifier
        groups: dict[Labels, list[float]] = defaultdict(list)
        for labels, value in self._vector(expression.expr, at).items():
            if modifier is None:
                group = NO_LABELS
            elif modifier.type == promql.AggModifierType.By:
                group = only(labels, modifier.labels)
            else:
                group = without(labels, ("__name__", *modifier.labels))
            groups[group].append(value)
        return {group: AGGREGATIONS[name](values) for group, values in groups.items()}

    def _binary(self, expression: promql.BinaryExpr, at: float) -> float | Vector:
        name, modifier = str(expression.op), expression.modifier
        if name not in ("and", "or", "unless", *ARITHMETIC, *COMPARISONS):
            raise Unsupported(f"operator {name} is not supported by the sandbox")
        if modifier is not None and modifier.group_labels is not None:
            raise Unsupported("group_left and group_right are not supported by the sandbox")
        key = _match_key(modifier)
        if name in ("and", "or", "unless"):
            return set_operation(name, self._vector(expression.lhs, at), self._vector(expression.rhs, at), key)
        left, right = self._value(expression.lhs, at), self._value(expression.rhs, at)
        filters = name in COMPARISONS and not (modifier is not None and modifier.return_bool)
        compute: Callable[[float, float], float] = ARITHMETIC.get(name) or COMPARISONS[name]
        if isinstance(left, float) and isinstance(right, float):
            return float(compute(left, right))
        if isinstance(left, float):
            vector = self._vector(expression.rhs, at)
            pairs = [(labels, unnamed(labels), left, each) for labels, each in vector.items()]
        elif isinstance(right, float):
            vector = self._vector(expression.lhs, at)
            pairs = [(labels, unnamed(labels), each, right) for labels, each in vector.items()]
        else:
            pairs = matched(self._vector(expression.lhs, at), self._vector(expression.rhs, at), key)
        if not filters:
            return {joined: float(compute(one, other)) for _, joined, one, other in pairs}
        scalar_first = isinstance(left, float)  # what passes the filter is the side that is a vector
        return {labels: other if scalar_first else one for labels, _, one, other in pairs if compute(one, other)}

    def _call(self, call: promql.Call, at: float) -> float | Vector:
        name, arguments = call.func.name, call.args
        if name.endswith("_over_time") and name.removesuffix("_over_time") in OVER_TIME:
            reduce = OVER_TIME[name.removesuffix("_over_time")]
            matrix = self._matrix(arguments[0], at)
            keep = (lambda labels: labels) if name == "last_over_time" else unnamed
            return {keep(labels): reduce([each for _, each in samples]) for labels, samples in matrix.items()}
        match name:
            case "time":
                return at
            case "vector":
                return {NO_LABELS: self._scalar(arguments[0], at)}
            case "scalar":
                vector = self._vector(arguments[0], at)
                return next(iter(vector.values())) if len(vector) == 1 else math.nan
            case "absent":
                return {} if self._vector(arguments[0], at) else {NO_LABELS: 1.0}
            case "timestamp":
                return self._timestamp(arguments[0], at)
            case "label_replace":
                texts = [str(self._value(argument, at)) for argument in arguments[1:]]
                return label_replace(self._vector(arguments[0], at), *texts)
        raise Unsupported(f"function {name} is not supported by the sandbox")

    def _timestamp(self, expression: object, at: float) -> Vector:
        while isinstance(expression, promql.ParenExpr):
            expression = expression.expr
        if isinstance(expression, promql.VectorSelector):
            return {unnamed(labels): sampled_at for labels, (sampled_at, _) in self._instant(expression, at).items()}
        return {unnamed(labels): at for labels in self._vector(expression, at)}


def _metric(selector: promql.VectorSelector) -> str:
    if selector.at is not None or selector.matchers.or_matchers:
        raise Unsupported("@ and `or` in a selector are not supported by the sandbox")
    named = (m.value for m in selector.matchers.matchers if m.name == "__name__" and m.op == promql.MatchOp.Equal)
    name = selector.name or next(named, None)
    if name is None:
        raise Unsupported("a selector without a metric's name is not supported by the sandbox")
    return name


def _selected(selector: promql.VectorSelector, series: Mapping[Labels, _T]) -> dict[Labels, _T]:
    named = {labels | {("__name__", _metric(selector))}: found for labels, found in series.items()}
    matchers = selector.matchers.matchers
    return {labels: found for labels, found in named.items() if all(matches(matcher, labels) for matcher in matchers)}


def _seconds(duration: timedelta | None) -> float:
    return duration.total_seconds() if duration is not None else 0.0


def _match_key(modifier: promql.BinModifier | None) -> Key:
    matching = modifier.matching if modifier is not None else None
    if matching is None:
        return unnamed
    if matching.type == promql.LabelModifierType.Include:
        return lambda labels: only(labels, matching.labels)
    return lambda labels: without(labels, ("__name__", *matching.labels))
