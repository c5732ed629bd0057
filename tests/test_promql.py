"""What a PromQL expression says of itself: that it is one, whether @ pins it, whether it may give several series."""

import pytest

from autoscaler.promql import LONGEST_QUERY, may_return_several, pins_time, syntax_problem

REFUSED = {
    "an open bracket": ("sum(x", "unclosed"),
    "nothing": ("", "no expression"),
    "an unknown function": ("frobnicate(x)", "unknown function"),
    "a range": ("x[5m]", "gives a range"),
    "a subquery": ("sum(x)[5m:]", "gives a range"),
    "a text": ('"x"', "gives a text"),
    "a long query": ("x" * (LONGEST_QUERY + 1), "longer than"),
    "brackets that would end the process": ("(" * 100_000 + "x", "longer than"),
    "brackets deeper than Python goes": ("(" * 2000 + "x" + ")" * 2000, "nested too deeply"),
}


@pytest.mark.parametrize(("query", "why"), REFUSED.values(), ids=REFUSED)
def test_refuses_what_gives_no_number(query: str, why: str) -> None:
    problem = syntax_problem(query)
    assert problem is not None
    assert why in problem


SINGLE = [
    "sum(x)",
    "sum by () (x)",
    "(avg(x))",
    "-sum(x)",
    "sum(x) / count(y) * 2",
    "sum(x) or vector(0)",
    "sum(x) and y",
    "round(sum(x))",
    "max_over_time(sum(x)[5m:])",
    "quantile(0.9, x)",
    "histogram_quantile(0.9, sum by (le) (rate(x_bucket[5m])))",
    "scalar(x)",
    "absent(x)",
    "hour()",
    "5",
]
SEVERAL = [
    "x",
    'x{site="a"}',
    "rate(x[5m])",
    "sum by (site) (x)",
    "sum without (pod) (x)",
    "topk(1, x)",
    "sum(x) / y",
    "sum(x) or y",
    "max_over_time(x[5m])",
    "histogram_quantile(0.9, rate(x_bucket[5m]))",
    "histogram_quantile(0.9, sum by (le, site) (rate(x_bucket[5m])))",
]


@pytest.mark.parametrize("query", SINGLE)
def test_one_series(query: str) -> None:
    assert syntax_problem(query) is None
    assert not may_return_several(query)


@pytest.mark.parametrize("query", SEVERAL)
def test_perhaps_several_series(query: str) -> None:
    assert syntax_problem(query) is None
    assert may_return_several(query)


PINNED = {
    "a selector": ("sum(x @ 1700000000)", True),
    "a range": ("sum(rate(x[5m] @ end()))", True),
    "a subquery": ("max_over_time(sum(x)[5m:] @ start())", True),
    "the right of an operator": ("sum(x) / sum(y @ end())", True),
    "a parameter": ("quantile(scalar(q @ end()), x)", True),
    "an at sign in a label": ('sum(x{user="a@b"})', False),
    "an offset": ("sum(x offset 5m)", False),
}


@pytest.mark.parametrize(("query", "pinned"), PINNED.values(), ids=PINNED)
def test_sees_at(query: str, pinned: bool) -> None:
    assert pins_time(query) is pinned
