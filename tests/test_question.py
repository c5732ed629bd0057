"""What is asked for one reading, without a server; the ages themselves are tested on a real one."""

from datetime import UTC, datetime, timedelta
from fractions import Fraction
from typing import Any

import promql_parser
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoscaler.model import Gap, GapReason, Question, Reading
from autoscaler.prometheus.question import Plan, plan

NOW = datetime(2026, 6, 1, 10, 0, tzinfo=UTC)
TWO_MINUTES = timedelta(minutes=2)


def planned(query: str, max_age: timedelta | None = TWO_MINUTES) -> Plan:
    made = plan(Question(query, max_age))
    assert isinstance(made, Plan), made
    return made


def value(text: str, **labels: str) -> dict[str, Any]:
    return {"metric": {"autoscaler_part": "value", **labels}, "value": [NOW.timestamp(), text]}


def sampled(source: int, seconds_ago: float) -> dict[str, Any]:
    seconds = f"{NOW.timestamp() - seconds_ago:.3f}"
    return {"metric": {"autoscaler_part": str(source)}, "value": [NOW.timestamp(), seconds]}


@pytest.mark.parametrize(
    ("query", "selectors"),
    [
        ("x", ["x"]),
        ("x / y", ["x", "y"]),
        ("x / x", ["x"]),
        ("x / x offset 5m", ["x", "x offset 5m"]),
        ('rate(x{a="b"}[5m] offset 1m)', ['x{a="b"}[5m] offset 1m']),
        ("max_over_time(sum(rate(x[5m]))[1h:])", ["x[5m]"]),
        ("sum(topk(scalar(n), x))", ["n", "x"]),
        ("quantile_over_time(scalar(q), x[5m])", ["q", "x[5m]"]),
        ("sum(x) or absent(y)", ["x"]),
        ("absent_over_time(x[5m])", []),
        ("time() + vector(1)", []),
    ],
)
def test_each_selector_is_asked_for_its_newest_sample_once(query: str, selectors: list[str]) -> None:
    assert [source.selector for source in planned(query).sources] == selectors


@pytest.mark.parametrize(
    ("query", "max_age"), [("x @ 1", None), ("nonsense(", None), ("time()", TWO_MINUTES), ("absent(x)", TWO_MINUTES)]
)
def test_without_ages_to_ask_for_the_expression_stays_as_it_is(query: str, max_age: timedelta | None) -> None:
    assert planned(query, max_age) == Plan(query, max_age)


@pytest.mark.parametrize(
    "query", ["x @ 1", "x @ end()", "max_over_time(x[5m:] @ 1)", "rate(x[5m] @ start())", "sum(", "x[5m]", '"x"', ""]
)
def test_what_has_no_age_is_a_bad_query(query: str) -> None:
    refused = plan(Question(query, TWO_MINUTES))

    assert isinstance(refused, Gap)
    assert refused.reason == GapReason.BAD_QUERY


@pytest.mark.parametrize(
    ("query", "result", "expected"),
    [
        ("x", [value("7"), sampled(0, 30)], Reading(Fraction(7), NOW - timedelta(seconds=30))),
        ("x / y", [sampled(1, 90), value("7"), sampled(0, 30)], Reading(Fraction(7), NOW - timedelta(seconds=90))),
        ("x", [value("7"), sampled(0, 120)], Reading(Fraction(7), NOW - timedelta(seconds=120))),
        ("x", [value("7"), sampled(0, -0.4)], Reading(Fraction(7), NOW)),
        (
            "x",
            [value("7"), sampled(0, 120.001)],
            Gap(GapReason.STALE, "the newest sample of x is 2m1s old, max_age is 2m"),
        ),
        ("x / y", [value("7"), sampled(0, 1)], Gap(GapReason.NO_DATA, "y has no samples")),
        ("rate(x[1m])", [sampled(0, 61)], Gap(GapReason.NO_DATA, "x[1m] has no samples")),
        ("x > 3", [sampled(0, 1)], Gap(GapReason.NO_DATA, "the query has no result")),
        ("x", [], Gap(GapReason.NO_DATA, "x has no samples")),
        (
            "x",
            [value("1", __name__="x", a="1"), value("2", __name__="x", a="2"), sampled(0, 1)],
            Gap(GapReason.SEVERAL_SERIES, '2 series where one is needed, such as x{a="1"}, x{a="2"}'),
        ),
        (
            "x",
            [{"metric": {"autoscaler_part": "value"}, "histogram": [0, {}]}, sampled(0, 1)],
            Gap(GapReason.NOT_A_NUMBER, "the result is a histogram"),
        ),
    ],
)
def test_value_and_ages_make_a_reading_or_a_gap(
    query: str, result: list[dict[str, Any]], expected: Reading | Gap
) -> None:
    assert planned(query).reading(result, NOW) == expected


@given(
    name=st.from_regex(r"\Am_[a-zA-Z0-9_:]{0,9}\Z"),
    label=st.text(st.characters(codec="utf-8"), min_size=1),
    offset=st.sampled_from(["", " offset 5m", " offset -1h30m", " offset 250ms"]),
    window=st.sampled_from(["", "[5m]", "[1h]"]),
)
def test_a_selector_is_asked_for_with_its_own_name_label_and_offset(
    name: str, label: str, offset: str, window: str
) -> None:
    quoted = "".join(f"\\U{ord(character):08x}" for character in label)
    selector = f'{name}{{which="{quoted}"}}{window}{offset}'
    made = planned(f"sum(last_over_time({selector}))" if window else f"sum({selector})")

    found: list[promql_parser.VectorSelector] = []

    def enter(node: promql_parser.Expr) -> None:
        if isinstance(node, promql_parser.VectorSelector):
            found.append(node)

    promql_parser.walk(promql_parser.parse(made.query), enter)
    # Once in the expression, once for the instant, and once more to search a range wider than the look-back.
    assert len(found) == (3 if window == "[1h]" else 2)
    for node in found:
        assert (node.name, [matcher.value for matcher in node.matchers.matchers]) == (name, [label])
        assert node.offset == found[0].offset


@given(number=st.floats(allow_nan=False, allow_infinity=False))
def test_every_number_prometheus_can_send_is_read_exactly(number: float) -> None:
    answer = [{"metric": {}, "value": [0, repr(number)]}]

    assert Plan("x", None).reading(answer, NOW) == Reading(Fraction(repr(number)), None)


@given(
    ages=st.lists(st.integers(0, 200_000).map(lambda milliseconds: milliseconds / 1000), min_size=1, max_size=4),
    max_age=st.integers(1, 200),
)
def test_a_reading_is_as_old_as_its_oldest_source_and_never_older_than_max_age(ages: list[float], max_age: int) -> None:
    made = planned(" + ".join(f"x{number}" for number in range(len(ages))), timedelta(seconds=max_age))

    answer = made.reading([value("1"), *(sampled(number, age) for number, age in enumerate(ages))], NOW)

    if max(ages) > max_age:
        assert isinstance(answer, Gap)
        assert answer.reason == GapReason.STALE
    else:
        assert answer == Reading(Fraction(1), NOW - timedelta(seconds=max(ages)))
