"""Values and ages as a real Prometheus gives them, for every place in an expression where samples may be looked for."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from fractions import Fraction

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from autoscaler.model import Gap, GapReason, Question, Reading
from autoscaler.prometheus import Prometheus, Server
from tests.system.prometheus_server import STALE, PrometheusServer

pytestmark = pytest.mark.system

NOW = datetime.now(UTC).replace(microsecond=0) - timedelta(hours=1)


def ago(**length: float) -> datetime:
    return NOW - timedelta(**length)


def every(seconds: int, *, since: int, until: int = 0) -> list[datetime]:
    """Instants ``seconds`` apart, the last of them ``until`` seconds before NOW."""
    return [ago(seconds=second) for second in range(since // seconds * seconds + until, until - 1, -seconds)]


@pytest.fixture(scope="module")
def real(prometheus: PrometheusServer) -> Iterator[Prometheus]:
    """A Prometheus with the series below, asked through the edge under test."""
    prometheus.write("fresh", [(at, 6) for at in every(15, since=3600, until=5)])
    prometheus.write("lagging", [(at, 3) for at in every(60, since=3600, until=240)])
    prometheus.write("slow", [(at, number * 60) for number, at in enumerate(every(600, since=7200, until=540))])
    prometheus.write("hourly", [(at, 1) for at in every(3600, since=7200, until=600)])
    prometheus.write("site", [(ago(seconds=10), 1)], name="a")
    prometheus.write("site", [(ago(seconds=250), 2)], name="b")
    prometheus.write("ended", [*((at, 5) for at in every(15, since=600, until=60)), (ago(seconds=45), STALE)])
    prometheus.write("twin_a", [(ago(seconds=40), 1)], site="x")
    prometheus.write("twin_b", [(ago(seconds=50), 2)], site="x")
    prometheus.write("after", [(at, 7) for at in every(15, since=600, until=-300)])
    prometheus.write("big", [(ago(seconds=1), 1e21)])
    prometheus.write("tiny", [(ago(seconds=1), 1e-7)])
    prometheus.write("tenth", [(ago(seconds=1), 0.1)])
    prometheus.write("nan", [(ago(seconds=1), float("nan"))])
    prometheus.write("zero", [(ago(seconds=1), 0)])
    prometheus.write("precise", [(ago(seconds=1, milliseconds=234), 1)])
    for le, count in (("1", 5), ("+Inf", 10)):
        prometheus.write("seconds_bucket", [(at, count * n) for n, at in enumerate(every(15, since=300))], le=le)
    edge = Prometheus(Server(prometheus.url), clock=lambda: datetime.now(UTC))
    yield edge
    edge.close()


def ask(real: Prometheus, query: str, max_age: timedelta | None = timedelta(minutes=2)) -> Reading | Gap:
    [answer] = real.read([Question(query, max_age)], NOW)
    return answer


@dataclass(frozen=True)
class Row:
    title: str
    query: str
    value: str
    age: float  # seconds
    max_age: timedelta = timedelta(minutes=2)
    coarse: float = 0  # seconds its age may be overstated by, where samples are searched in steps


HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
READINGS = [
    Row("an instant selector", "fresh", "6", 5),
    Row("a comment at the end", "fresh # of course", "6", 5),
    Row("several lines", "sum(\n  fresh\n)", "6", 5),
    Row("milliseconds count", "precise", "1", 1.234),
    Row("a division is as old as its older side", "fresh / lagging", "2", 240, HOUR),
    Row("a range selector reaches the newest sample in it", "sum_over_time(fresh[1m])", "24", 5),
    Row("case 35: a range far wider than the look-back", "round(10 * rate(slow[1h]))", "1", 540, HOUR),
    Row("a range whose one sample is older than the look-back", "last_over_time(hourly[30m])", "1", 600, HOUR),
    Row("an offset is counted out", "fresh offset 10m", "6", 5),
    Row("an offset that ends between two samples", "fresh offset 9s", "6", 11),
    Row("an offset longer than the look-back", "sum(lagging offset 30m)", "3", 0),
    Row("a range with an offset", "sum_over_time(fresh[1m] offset 10m)", "24", 5),
    Row("a wide range with an offset", "round(10 * rate(slow[1h] offset 10m))", "1", 540, HOUR),
    Row("a negative offset cannot ask for the future", "last_over_time(fresh[10m] offset -5m)", "6", 5),
    Row("a negative offset into samples that exist", "last_over_time(after[10m] offset -1m)", "7", 0),
    Row("a subquery", "max_over_time(fresh[10m:1s])", "6", 5),
    Row("a subquery in the server's own steps", "max_over_time(fresh[10m:])", "6", 5, coarse=75),
    Row("a subquery of a rate", "round(10 * max_over_time(rate(slow[30m])[1h:1s]))", "1", 540, HOUR, 60),
    Row("a subquery with an offset", "max_over_time(fresh[10m:1s] offset 10m)", "6", 5),
    Row("offsets add up", "max_over_time((fresh offset 5m)[10m:1s] offset 5m)", "6", 5),
    Row("a subquery in a subquery", "max_over_time(max_over_time(fresh[10m:1s])[5m:1s])", "6", 5),
    Row("functions and aggregations around", "ceil(max(avg_over_time(fresh[2m])))", "6", 5),
    Row("the parameter of an aggregation is a source too", "sum(topk(scalar(lagging), fresh))", "6", 240, HOUR),
    Row("the newest of several series speaks for a selector", "sum(site)", "3", 10),
    Row("a series that has ended goes on in a wide range", "last_over_time(ended[10m])", "5", 60, HOUR, coarse=300),
    Row("a name given as a label", '{__name__="fresh"}', "6", 5),
    Row("a scalar of a selector", "scalar(fresh) * 2", "12", 5),
    Row("a scalar in parentheses", "-(scalar(fresh))", "-6", 5),
    Row("a scalar without selectors is of now", "1 + 2", "3", 0),
    Row("time() is of now", "time() * 0", "0", 0),
    Row("vector() is of now", "vector(0)", "0", 0),
    Row("absent() needs no sample", "absent(nothing)", "1", 0),
    Row("or vector(0) with samples", "sum(fresh) or vector(0)", "6", 5),
    Row("a comparison that holds", "fresh > 5", "6", 5),
    Row("a comparison as a number", "fresh > bool 7", "0", 5),
    Row("a histogram's quantile", "histogram_quantile(0.5, rate(seconds_bucket[2m]))", "1", 0),
    Row("a tenth is a tenth", "tenth", "0.1", 1),
    Row("a large number", "big", "1e21", 1),
    Row("a small number", "tiny", "1e-7", 1),
    Row("joined with labels", 'fresh * on() group_left(name) site{name="a"}', "6", 10),
]


@pytest.mark.parametrize("row", READINGS, ids=lambda row: row.title)
def test_a_reading_has_its_value_and_the_age_of_its_samples(real: Prometheus, row: Row) -> None:
    answer = ask(real, row.query, row.max_age)

    assert isinstance(answer, Reading), answer
    assert answer.value == Fraction(row.value)
    assert answer.at is not None
    assert timedelta(0) <= NOW - answer.at - timedelta(seconds=row.age) <= timedelta(seconds=row.coarse)


GAPS = [
    ("a metric nobody knows", "nothing", GapReason.NO_DATA, "nothing has no samples"),
    ("older than the look-back", "slow", GapReason.NO_DATA, "slow has no samples"),
    ("no sample in the range", "sum_over_time(lagging[2m]) or vector(0)", GapReason.NO_DATA, "lagging[2m]"),
    ("no sample, and a default that hides it", "sum(nothing) or vector(0)", GapReason.NO_DATA, "nothing has no"),
    ("one side has no samples", "fresh / nothing", GapReason.NO_DATA, "nothing has no samples"),
    ("a scalar of nothing", "scalar(nothing)", GapReason.NO_DATA, "nothing has no samples"),
    ("a subquery whose last steps are empty", "max_over_time(slow[1h:1m])", GapReason.STALE, "slow is 9m"),
    ("a range of a series that has ended", "sum_over_time(ended[2m])", GapReason.NO_DATA, "ended[2m] has no"),
    ("a series that has ended", "ended", GapReason.NO_DATA, "ended has no samples"),
    ("a comparison that filters all", "fresh > 100", GapReason.NO_DATA, "the query has no result"),
    ("absent() of what is there", "absent(fresh)", GapReason.NO_DATA, "the query has no result"),
    ("several series", "site", GapReason.SEVERAL_SERIES, '2 series where one is needed, such as site{name="a"}'),
    ("several metrics with equal labels", '{__name__=~"twin_.*"}', GapReason.SEVERAL_SERIES, "2 series"),
    ("case 34: the older side is too old", "fresh / lagging", GapReason.STALE, "lagging is 4m old, max_age is 2m"),
    ("stale beats NaN", "nan * lagging", GapReason.STALE, "lagging"),
    ("case 35 with a short max_age", "rate(slow[1h])", GapReason.STALE, "slow[1h] is 9m old"),
    ("a coarse subquery is as old as its steps", "max_over_time(lagging[1h:30m])", GapReason.STALE, "lagging is"),
    ("NaN in the data", "nan", GapReason.NOT_A_NUMBER, "NaN"),
    ("nothing divided by nothing", "zero / zero", GapReason.NOT_A_NUMBER, "NaN"),
    ("something divided by nothing", "fresh / zero", GapReason.INFINITE, "+Inf"),
    ("minus infinity", "-fresh / zero", GapReason.INFINITE, "-Inf"),
    ("a time of its own", "fresh @ 1700000000", GapReason.BAD_QUERY, "`@`"),
    ("a subquery with a time of its own", "max_over_time(fresh[5m:] @ end())", GapReason.BAD_QUERY, "`@`"),
    ("no PromQL", "sum(fresh", GapReason.BAD_QUERY, "unclosed"),
    ("a range", "fresh[5m]", GapReason.BAD_QUERY, "range"),
    ("a text", '"12"', GapReason.BAD_QUERY, "text"),
    ("what only the server can refuse", "fresh * on() site", GapReason.BAD_QUERY, "many-to-many matching"),
]


@pytest.mark.parametrize(("query", "reason", "detail"), [row[1:] for row in GAPS], ids=[row[0] for row in GAPS])
def test_a_gap_has_its_name(real: Prometheus, query: str, reason: GapReason, detail: str) -> None:
    answer = ask(real, query)

    assert isinstance(answer, Gap), answer
    assert answer.reason == reason
    assert detail in answer.detail


def test_metric_names_by_pattern_with_equal_labels_look_older_by_two_steps_at_most(real: Prometheus) -> None:
    answer = ask(real, 'sum({__name__=~"twin_.*"})')

    assert isinstance(answer, Reading)
    assert answer.value == 3
    assert answer.at is not None
    assert timedelta(seconds=40) <= NOW - answer.at <= timedelta(seconds=40 + 2 * 15)


def test_metric_names_by_pattern_keep_their_age_under_an_offset(real: Prometheus) -> None:
    answer = ask(real, 'sum({__name__=~"fresh|lagging"} offset 10m)')

    assert isinstance(answer, Reading)
    assert answer.value == 9
    assert answer.at is not None
    assert timedelta(0) <= NOW - answer.at <= timedelta(seconds=30)


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("nothing or vector(0)", Reading(Fraction(0), None)),
        ("fresh @ 1", Gap(GapReason.NO_DATA, "the query has no result")),
        ("1 + 1", Reading(Fraction(2), None)),
        ("fresh[1m]", Gap(GapReason.BAD_QUERY, "the query gives a matrix, not a number")),
        ('"12"', Gap(GapReason.BAD_QUERY, "the query gives a string, not a number")),
    ],
)
def test_without_max_age_the_expression_is_asked_as_it_is(
    real: Prometheus, query: str, expected: Reading | Gap
) -> None:
    assert ask(real, query, None) == expected


def test_answers_come_in_the_order_of_their_questions(real: Prometheus) -> None:
    numbers = [*range(30), *range(30)]

    answers = real.read([Question(f"vector({number})", DAY) for number in numbers], NOW)

    assert answers == [Reading(Fraction(number), NOW) for number in numbers]


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(label=st.text(st.characters(codec="utf-8"), min_size=1, max_size=12))
def test_any_label_value_finds_its_series(prometheus: PrometheusServer, real: Prometheus, label: str) -> None:
    prometheus.write("labelled", [(ago(seconds=20), 4)], which=label)
    quoted = "".join(f"\\U{ord(character):08x}" for character in label)

    assert ask(real, f'labelled{{which="{quoted}"}}') == Reading(Fraction(4), ago(seconds=20))


@pytest.mark.usefixtures("prometheus")  # for its skip where there is none
def test_a_server_that_has_gone_is_unreachable(tmp_path_factory: pytest.TempPathFactory) -> None:
    with PrometheusServer(tmp_path_factory.mktemp("gone")) as server:
        edge = Prometheus(Server(server.url), clock=lambda: datetime.now(UTC))
        assert ask(edge, "vector(1)") == Reading(Fraction(1), NOW)
    answer = ask(edge, "vector(1)")
    edge.close()

    assert answer == Gap(GapReason.UNREACHABLE, f"{server.url}: Connection refused")


@pytest.mark.usefixtures("prometheus")  # for its skip where there is none
def test_a_query_too_heavy_for_the_server_is_a_gap_in_its_words(tmp_path_factory: pytest.TempPathFactory) -> None:
    with PrometheusServer(tmp_path_factory.mktemp("small"), flags=["--query.max-samples=5"]) as server:
        edge = Prometheus(Server(server.url), clock=lambda: datetime.now(UTC))
        answer = ask(edge, "sum_over_time(vector(1)[1h:1s])")
        edge.close()

    assert isinstance(answer, Gap)
    assert answer.reason == GapReason.BAD_QUERY
    assert "too many samples" in answer.detail
