"""What can be said of a PromQL expression without asking a server.

A query is judged when its policy is read: that it parses, that an instant query gives a number, whether ``@`` pins it
to another time, and whether it may give several series, which no purchase may rest on.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from typing import Final

import promql_parser
from promql_parser import ValueType

LONGEST_QUERY: Final = 4_096  # the parser recurses natively: twenty thousand brackets end the process

_MANY_SERIES_AGGREGATIONS = frozenset({"topk", "bottomk", "limitk", "limit_ratio", "count_values"})
# absent() answers with the one series that is not there.
_SINGLE_FUNCTIONS = frozenset({"absent", "absent_over_time", "pi", "scalar", "time", "vector"})
_LEFT_ONLY_OPERATORS = frozenset({"and", "unless"})


def syntax_problem(query: str) -> str | None:
    """Why ``query`` cannot be asked for one number at an instant, as a clause; None: it can."""
    if len(query) > LONGEST_QUERY:
        return f"is longer than {LONGEST_QUERY} characters"
    try:
        expression = promql_parser.parse(query)
        deque(_parts(expression), maxlen=0)
    except ValueError as error:
        return f"is not PromQL: {error}"
    except RecursionError:
        return "is nested too deeply"
    match expression:
        case promql_parser.MatrixSelector() | promql_parser.SubqueryExpr():
            return "gives a range, not a number"
        case promql_parser.StringLiteral():
            return "gives a text, not a number"
        case _:
            return None


def pins_time(query: str) -> bool:
    """Whether a part of ``query`` is read at a time of its own (``@``), so that its age says nothing. It must parse."""
    return any(getattr(part, "at", None) is not None for part in _parts(promql_parser.parse(query)))


def may_return_several(query: str) -> bool:
    """Whether nothing in the form of ``query`` keeps it to one series. It must parse."""
    return not _single(promql_parser.parse(query))


def _parts(expression: object) -> Iterator[object]:
    yield expression
    match expression:
        case promql_parser.AggregateExpr(expr=inner, param=parameter):
            yield from _parts(inner)
            yield from _parts(parameter)
        case promql_parser.UnaryExpr(expr=inner) | promql_parser.ParenExpr(expr=inner):
            yield from _parts(inner)
        case promql_parser.SubqueryExpr(expr=inner):
            yield from _parts(inner)
        case promql_parser.MatrixSelector(vector_selector=inner):
            yield from _parts(inner)
        case promql_parser.BinaryExpr(lhs=left, rhs=right):
            yield from _parts(left)
            yield from _parts(right)
        case promql_parser.Call(args=arguments):
            for argument in arguments:
                yield from _parts(argument)


def _single(expression: object) -> bool:
    match expression:
        case promql_parser.NumberLiteral() | promql_parser.StringLiteral():
            return True
        case promql_parser.AggregateExpr(op=operation, modifier=modifier):
            keeps_labels = modifier is not None and not (
                modifier.type == promql_parser.AggModifierType.By and not modifier.labels
            )
            return not keeps_labels and str(operation) not in _MANY_SERIES_AGGREGATIONS
        case promql_parser.UnaryExpr(expr=inner) | promql_parser.ParenExpr(expr=inner):
            return _single(inner)
        case promql_parser.SubqueryExpr(expr=inner):
            return _single(inner)
        case promql_parser.BinaryExpr(op=operation, lhs=left, rhs=right):
            return _single(left) and (str(operation) in _LEFT_ONLY_OPERATORS or _single(right))
        case promql_parser.Call(func=function, args=arguments):
            if function.name in _SINGLE_FUNCTIONS or function.return_type == ValueType.Scalar:
                return True
            one_histogram = _quantile_of_one_histogram(function.name, arguments)
            return one_histogram or all(_single(argument) for argument in arguments)
        case _:
            return False


def _quantile_of_one_histogram(function: str, arguments: Sequence[object]) -> bool:
    """Whether these are the buckets of a single histogram: its label ``le`` ends in the quantile."""
    if function != "histogram_quantile":
        return False
    match arguments[-1]:
        case promql_parser.AggregateExpr(modifier=modifier) if modifier is not None:
            return bool(modifier.type == promql_parser.AggModifierType.By and modifier.labels == ["le"])
        case _:
            return False
