"""What is asked of Prometheus for one reading, and what its answer means: a value no older than it claims to be.

The time Prometheus gives with a result is the query's own and says nothing of the data. So one query asks both: the
union of the user's expression and, for each of its selectors, the time of that selector's newest sample, told apart by
a label. A selector's samples are looked for where the expression itself looks: through its range, the subqueries around
it and all their offsets.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from typing import Any, Final

import promql_parser
from promql_parser import Expr, MatchOp, MatrixSelector, SubqueryExpr, ValueType, VectorSelector

from autoscaler.duration import format_duration
from autoscaler.model import Gap, GapReason, Question, Reading
from autoscaler.promql import pins_time, syntax_problem

_PART: Final = "autoscaler_part"  # the label that tells the parts of the union apart
_VALUE: Final = "value"

# How far an instant selector looks back, unless the server's --query.lookback-delta says otherwise.
_LOOKBACK: Final = timedelta(minutes=5)
# A wider window is searched in strides of a look-back: none of its samples is stepped over, and the search costs little
# beside the expression itself. (Where every series of a selector is marked as ended, it finds less, and looks older.)
_STRIDE: Final = format_duration(_LOOKBACK)
_STEP: Final = timedelta(seconds=15)  # a common scrape interval; finer costs more, coarser makes samples look older

# Their very purpose is a selector without samples.
_OF_ABSENCE: Final = frozenset({"absent", "absent_over_time"})

# How promql-parser prints it, always last. (A selector whose `offset` was set to None still prints the old one, and its
# str(), which does not, leaves the label values unescaped: 0.12.)
_OFFSET: Final = re.compile(r" offset -?[0-9a-z]+\Z")

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
# Three digits of exponent hold every float64, and keep a hostile answer from naming a number of a billion digits.
_FINITE: Final = re.compile(r"[+-]?[0-9]{1,400}(\.[0-9]{1,400})?([eE][+-]?[0-9]{1,3})?")


@dataclass(frozen=True, slots=True)
class Source:
    """A selector of the expression, and where its samples are to be found."""

    selector: str
    newest: str  # PromQL: time of its newest sample in seconds, one series without labels, or nothing
    offset: timedelta  # its own and those of the subqueries around it
    window: timedelta | None  # beyond it a sample is not the expression's; None: not known


@dataclass(frozen=True, slots=True)
class Plan:
    """A question, ready to be asked as ``query``."""

    query: str
    max_age: timedelta | None
    sources: tuple[Source, ...] = ()

    def reading(self, result: Sequence[Any], at: datetime) -> Reading | Gap:
        """The reading that ``result`` holds, as of ``at``, the query's own time.

        ``result`` is the ``data.result`` of Prometheus's answer, a vector or a scalar.

        Raises:
            KeyError, IndexError, TypeError, ValueError, OverflowError: it is neither.
        """
        if len(result) == 2 and not isinstance(result[0], Mapping):  # a scalar: [time, "value"]
            return _reading(result[1], None if self.max_age is None else at)
        values = [row for row in result if not self.sources or row["metric"].get(_PART) == _VALUE]
        sampled_at = None if self.max_age is None else at
        if self.sources and self.max_age is not None:
            parts = ((row["metric"].get(_PART), row) for row in result)
            newest = {part: row["value"][1] for part, row in parts if part != _VALUE}
            found = _age(self.sources, newest, self.max_age, at)
            if isinstance(found, Gap):
                return found
            sampled_at = at - found
        if not values:
            return Gap(GapReason.NO_DATA, "the query has no result")
        if len(values) > 1:
            shown = ", ".join(_labels(row["metric"]) for row in values[:2])
            return Gap(GapReason.SEVERAL_SERIES, f"{len(values)} series where one is needed, such as {shown}")
        if "value" not in values[0]:
            return Gap(GapReason.NOT_A_NUMBER, "the result is a histogram")
        return _reading(values[0]["value"][1], sampled_at)


def plan(question: Question) -> Plan | Gap:
    """How to ask ``question``; a gap ``bad_query`` where its age could not be told."""
    if question.max_age is None:
        return Plan(question.query, None)
    if problem := syntax_problem(question.query):
        return Gap(GapReason.BAD_QUERY, f"the query {problem}")
    if pins_time(question.query):
        return Gap(GapReason.BAD_QUERY, "`@` pins the query to a time, so it has no age; set max_age: none")
    expression = promql_parser.parse(question.query)
    sources = _sources(expression)
    if not sources:
        return Plan(question.query, question.max_age)
    # The line end keeps a comment at the query's end from swallowing the rest.
    value = f"vector({question.query}\n)" if _is_scalar(expression) else f"{question.query}\n"
    parts = [_labelled(value, _VALUE)]
    parts += [_labelled(source.newest, str(number)) for number, source in enumerate(sources)]
    return Plan(" or ".join(parts), question.max_age, sources)


def _labelled(vector: str, part: str) -> str:
    return f'label_replace({vector}, "{_PART}", "{part}", "", "")'


def _sources(expression: Expr) -> tuple[Source, ...]:
    """The selectors of ``expression``, each once."""
    found: dict[Source, None] = {}
    around: list[Expr] = []

    def enter(node: Expr) -> None:
        if isinstance(node, VectorSelector) and not any(_of_absence(outer) for outer in around):
            found[_source(node, around)] = None
        around.append(node)

    def leave(_: Expr) -> None:
        around.pop()

    promql_parser.walk(expression, enter, leave)
    return tuple(found)


def _source(selector: VectorSelector, around: Sequence[Expr]) -> Source:
    matrix = around[-1] if around and isinstance(around[-1], MatrixSelector) else None
    subqueries = [node for node in around if isinstance(node, SubqueryExpr)]
    offset = selector.offset or timedelta(0)
    bare = _OFFSET.sub("", selector.prettify())
    newest = _newest(bare, offset) if _has_one_name(selector) else _newest_of_many_names(bare, offset)
    if matrix and matrix.range > _LOOKBACK:
        newest = _newer(newest, f"max_over_time({newest}[{format_duration(matrix.range)}:{_STRIDE}])")
    for subquery in reversed(subqueries):
        newest = _within(newest, subquery)
        offset += subquery.offset or timedelta(0)
    return Source(
        selector=(matrix or selector).prettify(),
        newest=newest,
        offset=offset,
        window=matrix.range if matrix and not subqueries and _has_one_name(selector) else None,
    )


def _newest(selector: str, offset: timedelta) -> str:
    """PromQL for the time of the newest sample within the look-back: a call, so that a subquery can follow."""
    return f"max(timestamp({selector}{_offset(offset)}))"


def _newest_of_many_names(selector: str, offset: timedelta) -> str:
    # timestamp() drops the metric's name and then refuses the twins this makes; last_over_time() keeps it. So the
    # look-back is searched for a step with a sample in it: the sample may look older than it is, by two steps at most.
    step = format_duration(_STEP)
    found = f"timestamp(group(last_over_time({selector}[{step}]{_offset(offset)})))"
    return f"max(max_over_time({found}[{format_duration(_LOOKBACK)}:{step}]) - {(_STEP + offset).total_seconds():.3f})"


def _within(newest: str, subquery: SubqueryExpr) -> str:
    """The newest that ``subquery`` sees of ``newest``: at its last step as it takes it, before that in strides."""
    step = f":{format_duration(subquery.step) if subquery.step else ''}"
    offset = _offset(subquery.offset or timedelta(0))
    window = subquery.range or _LOOKBACK
    last = subquery.step * 2 if subquery.step else _LOOKBACK
    whole = f"[{format_duration(window)}"
    if window <= last or last > _LOOKBACK:
        return f"max(max_over_time({newest}{whole}{step}]{offset}))"
    return _newer(
        f"max_over_time({newest}[{format_duration(last)}{step}]{offset})",
        f"max_over_time({newest}{whole}:{_STRIDE}]{offset})",
    )


def _newer(one: str, other: str) -> str:
    # Without a label of its own the second side of `or` would count only where the first is empty.
    return f'max({one} or label_replace({other}, "{_PART}", "reach", "", ""))'


def _offset(length: timedelta) -> str:
    return f" offset {format_duration(length)}" if length else ""


def _has_one_name(selector: VectorSelector) -> bool:
    return bool(selector.name) or any(
        matcher.name == "__name__" and matcher.op == MatchOp.Equal for matcher in selector.matchers.matchers
    )


def _of_absence(node: Expr) -> bool:
    return isinstance(node, promql_parser.Call) and node.func.name in _OF_ABSENCE


def _is_scalar(expression: Expr) -> bool:
    match expression:
        case promql_parser.NumberLiteral():
            return True
        case promql_parser.Call(func=function):
            return bool(function.return_type == ValueType.Scalar)
        case promql_parser.ParenExpr(expr=inner) | promql_parser.UnaryExpr(expr=inner):
            return _is_scalar(inner)
        case promql_parser.BinaryExpr(lhs=left, rhs=right):
            return _is_scalar(left) and _is_scalar(right)
        case _:
            return False


def _age(sources: Sequence[Source], newest: Mapping[str, str], max_age: timedelta, at: datetime) -> timedelta | Gap:
    """Age of the oldest of the sources' newest samples."""
    ages: list[tuple[timedelta, Source]] = []
    for number, source in enumerate(sources):
        text = newest.get(str(number))
        if text is None:
            return Gap(GapReason.NO_DATA, f"{source.selector} has no samples")
        sampled_at = _EPOCH + timedelta(milliseconds=round(_number(text) * 1000))
        looked_at = at - source.offset
        if source.window is not None and looked_at - sampled_at > source.window:
            return Gap(GapReason.NO_DATA, f"{source.selector} has no samples")
        # A negative offset looks ahead of `at`, where there cannot be samples yet.
        ages.append((max(timedelta(0), min(looked_at, at) - sampled_at), source))
    age, oldest = max(ages, key=lambda aged: aged[0])
    if age > max_age:
        seconds = timedelta(seconds=-(-age // timedelta(seconds=1)))
        return Gap(
            GapReason.STALE,
            f"the newest sample of {oldest.selector} is {format_duration(seconds)} old,"
            f" max_age is {format_duration(max_age)}",
        )
    return age


def _reading(text: str, at: datetime | None) -> Reading | Gap:
    match text.lstrip("+-").lower():
        case "nan":
            return Gap(GapReason.NOT_A_NUMBER, "the result is NaN")
        case "inf":
            return Gap(GapReason.INFINITE, f"the result is {text}")
        case _:
            return Reading(_number(text), at)


def _number(text: str) -> Fraction:
    if not _FINITE.fullmatch(text):
        raise ValueError("not a number of Prometheus")
    return Fraction(text)


def _labels(metric: Mapping[str, str]) -> str:
    pairs = (f'{name}="{value}"' for name, value in metric.items() if name not in {"__name__", _PART})
    return metric.get("__name__", "") + "{" + ", ".join(pairs) + "}"
