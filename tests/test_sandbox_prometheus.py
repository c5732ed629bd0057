"""The replayed Prometheus: what it evaluates, how it answers, and that the product's client reads it."""

import math
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from itertools import pairwise
from typing import Any

import httpx
import pytest

from autoscaler.model import Gap, GapReason, Question, Reading
from autoscaler.prometheus import Prometheus, Server
from autoscaler.sandbox import Answer, Cut, DataFault, Fault, Late, ReplayedPrometheus, recorded_load, replayed
from autoscaler.sandbox.evaluator import Evaluator, Unsupported, Value
from autoscaler.sandbox.prometheus import number_text
from autoscaler.sandbox.recording import Recording
from autoscaler.sandbox.vectors import Ambiguous

NOW = datetime(2026, 6, 1, 12, 0, tzinfo=UTC)
AT = NOW.timestamp()


def ago(seconds: float, value: float) -> list[tuple[float, float]]:
    """One sample, taken so long ago."""
    return [(AT - seconds, value)]


RECORDED: Mapping[str, Any] = {
    "load": ago(0, 5873),
    "workers": ago(10, 14),
    "slow": ago(290, 7),
    "gone": ago(301, 7),
    'sessions{site="a",node="1"}': ago(0, 1),
    'sessions{site="a",node="2"}': ago(20, 2),
    'sessions{site="b",node="1"}': ago(40, 4),
    'capacity{site="a",node="1"}': ago(0, 10),
    'capacity{site="a",node="2"}': ago(0, 20),
    "rising": [(AT - 60 * number, 10.0 - number) for number in range(10, -1, -1)],
    'mixed{node="1"}': ago(0, math.nan),
    'mixed{node="2"}': ago(0, 5),
    "utilization": lambda at: [0.5, 0.75] if at >= AT - 60 else [0.25],
    "silent": lambda _: None,
}


def evaluate(query: str) -> Value:
    return Evaluator(Recording.of(RECORDED)).evaluate(query, AT)


def values(query: str) -> list[float | Any]:
    """The values of a vector by their labels; a scalar as it is."""
    value = evaluate(query)
    return [value[key] for key in sorted(value, key=sorted)] if isinstance(value, dict) else [value]


@pytest.mark.parametrize(
    ("query", "result"),
    [
        pytest.param("load", [5873], id="a series"),
        pytest.param("missing", [], id="a series that there is not"),
        pytest.param("slow", [7], id="a sample within the look-back"),
        pytest.param("gone", [], id="a sample beyond it"),
        pytest.param("load offset 1m", [], id="a sample after the offset"),
        pytest.param("gone offset 5m", [7], id="a sample before the offset"),
        pytest.param("silent", [], id="a function without a value"),
        pytest.param("sum(sessions)", [7], id="sum"),
        pytest.param("avg(sessions)", [7 / 3], id="avg"),
        pytest.param("max(sessions)", [4], id="max"),
        pytest.param("min(sessions)", [1], id="min"),
        pytest.param("count(sessions)", [3], id="count"),
        pytest.param("sum(missing)", [], id="the sum of nothing is nothing"),
        pytest.param("max(mixed)", [5], id="max passes over NaN"),
        pytest.param("sum by (site) (sessions)", [3, 4], id="by"),
        pytest.param("sum without (node) (sessions)", [3, 4], id="without"),
        pytest.param('sum(sessions{site="a"})', [3], id="equal"),
        pytest.param('sum(sessions{site!="a"})', [4], id="not equal"),
        pytest.param('sum(sessions{site=~"a|b",node!~"2"})', [5], id="regular expressions match whole values"),
        pytest.param('{__name__="load"}', [5873], id="a name among the labels"),
        pytest.param("load / workers", [419.5], id="a quotient"),
        pytest.param("load * 2 - 1", [11745], id="with scalars"),
        pytest.param("1 + 2 * 3", [7], id="of scalars"),
        pytest.param("-load", [-5873], id="negation"),
        pytest.param("-(2)", [-2], id="negation of a scalar"),
        pytest.param("load / 0", [math.inf], id="by zero"),
        pytest.param("-1 / 0", [-math.inf], id="minus one by zero"),
        pytest.param("sessions / capacity", [0.1, 0.1], id="matched by all labels"),
        pytest.param("sum by (site) (sessions) * on (site) max by (site) (capacity)", [60], id="on"),
        pytest.param("capacity - ignoring (x) sessions", [9, 18], id="ignoring"),
        pytest.param("sessions > 1", [4, 2], id="a comparison filters"),
        pytest.param("sessions > bool 1", [0, 1, 1], id="a comparison as numbers"),
        pytest.param("1 < sessions", [4, 2], id="a filter with the scalar first shows the vector"),
        pytest.param("2 > bool 1", [1], id="a comparison of scalars"),
        pytest.param("missing or vector(0)", [0], id="or"),
        pytest.param("load or vector(0)", [5873], id="or matches without the name"),
        pytest.param("sessions and capacity", [1, 2], id="and"),
        pytest.param("sessions unless capacity", [4], id="unless"),
        pytest.param("vector(scalar(load))", [5873], id="there and back"),
        pytest.param("scalar(workers) + 1", [15], id="scalar"),
        pytest.param("time()", [AT], id="time"),
        pytest.param("absent(missing)", [1], id="absent"),
        pytest.param("absent(load)", [], id="not absent"),
        pytest.param("timestamp(slow)", [AT - 290], id="the time of a sample"),
        pytest.param("timestamp((slow))", [AT - 290], id="the time of a sample in brackets"),
        pytest.param("timestamp(sum(slow))", [AT], id="the time of a result is the query's"),
        pytest.param("timestamp(gone offset 5m)", [AT - 301], id="an offset leaves the time as it was"),
        pytest.param("max_over_time(rising[3m])", [10], id="max over a range"),
        pytest.param("min_over_time(rising[3m])", [8], id="a range is open at its start"),
        pytest.param("count_over_time(rising[3m] offset 1m)", [3], id="a range with an offset"),
        pytest.param("last_over_time(gone[10m])", [7], id="a range wider than the look-back"),
        pytest.param("min_over_time(sum(rising)[3m:])", [8], id="a subquery by the minute"),
        pytest.param("count_over_time(sum(rising)[3m:30s])", [6], id="a subquery with a step"),
        pytest.param("sum_over_time(vector(1)[5m:1m])", [5], id="a subquery of a constant"),
        pytest.param("max(max_over_time(timestamp(gone)[20m:15s]))", [AT - 301], id="the newest sample in a range"),
        pytest.param("utilization", [0.5, 0.75], id="a computed list is a series each"),
        pytest.param("count(utilization)", [2], id="a computed list has its length"),
        pytest.param("count(utilization offset 5m)", [1], id="at another time another one"),
        pytest.param("count_over_time(utilization[2m])", [8, 5], id="a computed series is sampled every 15 s"),
    ],
)
def test_a_query_is_evaluated(query: str, result: list[float]) -> None:
    assert values(query) == pytest.approx(result)


@pytest.mark.parametrize(
    ("replacement", "pattern", "labels"),
    [
        pytest.param("$1-x", "(.).*", {"where": "b-x"}, id="a group"),
        pytest.param("${1}x", "(.*)", {"where": "bx"}, id="a group in braces"),
        pytest.param("$2y", "(.*)", {}, id="a group that there is not"),
        pytest.param("x", "a", {}, id="no match"),
    ],
)
def test_label_replace_sets_a_label(replacement: str, pattern: str, labels: dict[str, str]) -> None:
    found = evaluate(f'label_replace(sessions{{site="b"}}, "where", "{replacement}", "site", "{pattern}")')
    assert found == {frozenset({("__name__", "sessions"), ("site", "b"), ("node", "1"), *labels.items()}): 4.0}


@pytest.mark.parametrize(
    ("query", "says"),
    [
        pytest.param("sum(", "parse error", id="not a query"),
        pytest.param("rate(load[5m])", "function rate", id="a function it does not know"),
        pytest.param("topk(1, load)", "aggregation topk", id="an aggregation it does not know"),
        pytest.param("load ^ 2", "operator ^", id="an operator it does not know"),
        pytest.param("load @ 5", "@", id="a pinned time"),
        pytest.param('{site="a"}', "without a metric's name", id="any metric"),
        pytest.param("load * on (x) group_left workers", "group_left", id="matching many to one"),
    ],
)
def test_what_it_cannot_evaluate_is_said_by_name(query: str, says: str) -> None:
    with pytest.raises(Unsupported, match=says.replace("^", r"\^")):
        evaluate(query)


@pytest.mark.parametrize(
    "query",
    [
        pytest.param("sum by (site) (capacity) / on () sessions", id="several on the right"),
        pytest.param("sessions / on () load", id="several on the left"),
        pytest.param('label_replace(sessions, "node", "x", "", "") and label_replace(x, "a", "b", "", "")', id="twins"),
    ],
)
def test_ambiguous_series_are_an_error(query: str) -> None:
    with pytest.raises(Ambiguous):
        evaluate(query)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (14.0, "14"),
        (0.65, "0.65"),
        (1e21, "1" + "0" * 21),
        (1.5e-7, "0.00000015"),
        (math.nan, "NaN"),
        (math.inf, "+Inf"),
        (-math.inf, "-Inf"),
    ],
)
def test_numbers_are_written_as_prometheus_does(value: float, text: str) -> None:
    assert number_text(value) == text


def test_a_name_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="sum"):
        Recording.of({"sum(load)": []})


# --- over HTTP ---


@pytest.fixture
def server() -> Iterator[ReplayedPrometheus]:
    with ReplayedPrometheus(RECORDED, clock=lambda: NOW) as server:
        yield server


def ask(server: ReplayedPrometheus, path: str = "query", **parameters: str) -> tuple[int, Any]:
    response = httpx.get(f"{server.url}/api/v1/{path}", params=parameters, trust_env=False)
    return response.status_code, response.json()


def test_a_vector_by_get_and_by_post(server: ReplayedPrometheus) -> None:
    expected = {
        "status": "success",
        "data": {"resultType": "vector", "result": [{"metric": {"__name__": "load"}, "value": [AT, "5873"]}]},
    }
    assert ask(server, query="load") == (200, expected)
    form = {"query": "load", "time": "2026-06-01T12:00:00Z"}
    assert httpx.post(f"{server.url}/api/v1/query", data=form, trust_env=False).json() == expected
    assert server.queries == ["load", "load"]


@pytest.mark.parametrize(
    ("query", "kind", "result"),
    [
        pytest.param("1", "scalar", [AT, "1"], id="a scalar"),
        pytest.param('"text"', "string", [AT, "text"], id="a string"),
        pytest.param(
            "slow[5m]",
            "matrix",
            [{"metric": {"__name__": "slow"}, "values": [[AT - 290, "7"]]}],
            id="a range",
        ),
    ],
)
def test_other_kinds_of_result(server: ReplayedPrometheus, query: str, kind: str, result: object) -> None:
    assert ask(server, query=query)[1]["data"] == {"resultType": kind, "result": result}


def test_a_range_query(server: ReplayedPrometheus) -> None:
    status, answer = ask(server, "query_range", query="rising", start=str(AT - 120), end=str(AT), step="1m")
    assert status == 200
    [series] = answer["data"]["result"]
    assert series["values"] == [[AT - 120, "8"], [AT - 60, "9"], [AT, "10"]]


@pytest.mark.parametrize(
    ("path", "parameters", "status", "kind"),
    [
        pytest.param("query", {"query": "sum("}, 400, "bad_data", id="a query that is none"),
        pytest.param("query", {"query": "load", "time": "soon"}, 400, "bad_data", id="a time that is none"),
        pytest.param(
            "query",
            {"query": 'label_replace(load, "a", "b", "c", "(")'},
            400,
            "bad_data",
            id="a regular expression that is none",
        ),
        pytest.param("query", {"query": "sessions / on () load"}, 422, "execution", id="ambiguous series"),
        pytest.param("query_range", {"query": "load"}, 400, "bad_data", id="a range without ends"),
        pytest.param(
            "query_range", {"query": "load", "start": "0", "end": "12000", "step": "1"}, 400, "bad_data", id="too fine"
        ),
        pytest.param("labels", {}, 404, "not_found", id="another endpoint"),
    ],
)
def test_an_error_is_told_as_prometheus_does(
    server: ReplayedPrometheus, path: str, parameters: dict[str, str], status: int, kind: str
) -> None:
    found, answer = ask(server, path, **parameters)
    assert (found, answer["status"], answer["errorType"]) == (status, "error", kind)


# --- read by the product ---


@pytest.fixture
def client(server: ReplayedPrometheus) -> Iterator[Prometheus]:
    client = Prometheus(Server(server.url, timeout=timedelta(seconds=1)), clock=lambda: NOW)
    yield client
    client.close()


@pytest.mark.parametrize(
    ("query", "value", "age"),
    [
        pytest.param("sum(sessions)", 7, 0, id="the age is told by the newest sample of a selector"),
        pytest.param("load / workers", Fraction("419.5"), 10, id="and by the oldest of the selectors"),
        pytest.param("avg(utilization)", Fraction("0.625"), 0, id="a computed series is always fresh"),
        pytest.param("max_over_time(slow[10m])", 7, 290, id="a range wider than the look-back"),
        pytest.param("scalar(workers) * 2", 28, 10, id="a scalar"),
        pytest.param("missing or vector(3)", None, 0, id="a selector without samples is a gap"),
    ],
)
def test_the_products_client_reads_value_and_age(
    client: Prometheus, query: str, value: Fraction | int | None, age: int
) -> None:
    [reading] = client.read([Question(query, timedelta(minutes=5))], NOW)
    if value is None:
        assert isinstance(reading, Gap)
        assert reading.reason is GapReason.NO_DATA
    else:
        assert reading == Reading(Fraction(value), NOW - timedelta(seconds=age))


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        pytest.param(DataFault.EMPTY, GapReason.NO_DATA, id="no series"),
        pytest.param(DataFault.TWO_SERIES, GapReason.SEVERAL_SERIES, id="two series"),
        pytest.param(DataFault.NOT_A_NUMBER, GapReason.NOT_A_NUMBER, id="NaN"),
        pytest.param(DataFault.INFINITE, GapReason.INFINITE, id="infinity"),
        pytest.param(DataFault.PARTIAL, GapReason.PARTIAL_ANSWER, id="a warning"),
        pytest.param(Answer(503), GapReason.SERVER_ERROR, id="503"),
        pytest.param(Answer(200, body="<html>"), GapReason.NOT_JSON, id="not JSON"),
        pytest.param(Late(timedelta(seconds=30)), GapReason.TIMEOUT, id="a late answer"),
        pytest.param(Late(timedelta(seconds=30), processed="late"), GapReason.TIMEOUT, id="a queue"),
        pytest.param(Cut(sold=False), GapReason.UNREACHABLE, id="no answer"),
    ],
)
def test_a_fault_is_a_gap_until_it_is_over(
    server: ReplayedPrometheus, client: Prometheus, fault: Fault | DataFault, reason: GapReason
) -> None:
    question = Question("sum(load)", timedelta(minutes=2))
    server.fault = fault
    [gap] = client.read([question], NOW)
    assert isinstance(gap, Gap)
    assert gap.reason is reason
    server.fault = None
    assert client.read([question], NOW) == [Reading(Fraction(5873), NOW)]


# --- the recorded load ---


def test_the_recorded_load_rises_to_the_sixfold() -> None:
    load = recorded_load()
    assert len(load) == 180
    assert {later - earlier for (earlier, _), (later, _) in pairwise(load)} == {60.0}
    assert max(value for _, value in load[-60:]) > 6 * load[0][1]


def test_a_recording_is_replayed_at_another_pace() -> None:
    load = replayed(recorded_load(), start=NOW, every=timedelta(milliseconds=500))
    assert (load[0][0], load[2][0], load[2][1]) == (AT, AT + 1, recorded_load()[2][1])
