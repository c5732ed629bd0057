"""A Prometheus on loopback that answers queries from recorded or computed load.

Series are given as samples or as functions of time, so that a demo can close the loop: the load is recorded, the
utilization computed from it and from the workers that were bought meanwhile.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from typing import Any, Self
from urllib.parse import parse_qsl

from autoscaler.clock import Clock, utc_now
from autoscaler.duration import parse_duration
from autoscaler.sandbox.evaluator import Evaluator, Unsupported
from autoscaler.sandbox.faults import Answer, Fault, Late, bend
from autoscaler.sandbox.recording import Computed, Recording
from autoscaler.sandbox.vectors import NO_LABELS, Ambiguous, Labels, Matrix, Samples, Vector
from autoscaler.sandbox.wire import Cutoff, LoopbackServer, Reply, Request

MOST_POINTS = 11_000  # of a series in the answer to a range query: Prometheus's own limit


class DataFault(StrEnum):
    """How the result may be wrong, the server being well."""

    EMPTY = "empty"  # no series at all
    TWO_SERIES = "two_series"  # each series comes twice, told apart by a label
    NOT_A_NUMBER = "not_a_number"
    INFINITE = "infinite"
    PARTIAL = "partial"  # the answer carries a warning


class ReplayedPrometheus:
    """Serves ``/api/v1/query`` and ``/api/v1/query_range``, by GET and POST.

    ``series`` maps names to samples or functions. ``fault`` bends every answer until it is set to None again;
    ``queries`` are the expressions asked for. What the sandbox cannot evaluate gets 400, as a wrong query does.
    """

    def __init__(
        self,
        series: Mapping[str, Samples | Computed],
        *,
        clock: Clock = utc_now,
        port: int = 0,
    ) -> None:
        self.fault: Fault | DataFault | None = None
        self.queries: list[str] = []
        self._recording = Recording.of(series)
        self._clock = clock
        self._server = LoopbackServer(self._answer, port=port)

    @property
    def url(self) -> str:
        """Its address, without a trailing slash."""
        return self._server.url

    def start(self) -> None:
        """Begin to serve. Raises ``OSError`` when the port is taken."""
        self._server.start()

    def close(self) -> None:
        """Be unreachable until started again."""
        self._server.close()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _answer(self, request: Request) -> Reply | Cutoff:
        fault = self.fault
        if isinstance(fault, Late) and fault.processed == "late" and not self._server.pause(fault.by):
            return Cutoff()
        if isinstance(fault, DataFault):
            return self._reply(request, fault)
        return bend(fault, lambda: self._reply(request, None), self._written)

    def _reply(self, request: Request, fault: DataFault | None) -> Reply:
        parameters = request.parameters | dict(parse_qsl(request.body.decode(errors="replace")))
        query = parameters.get("query", "")
        self.queries.append(query)
        evaluator = Evaluator(self._recording if fault is None else _Faulty(self._recording, fault))
        try:
            if request.path.endswith("/api/v1/query"):
                kind, result = self._query(evaluator, query, parameters)
            elif request.path.endswith("/api/v1/query_range"):
                kind, result = "matrix", _range(evaluator, query, parameters)
            else:
                return self._error(404, "not_found", "page not found")
        except Unsupported as error:
            return self._error(400, "bad_data", f'invalid parameter "query": {error}')
        except Ambiguous as error:
            return self._error(422, "execution", str(error))
        except ValueError as error:
            return self._error(400, "bad_data", f"invalid parameter: {error}")
        if fault is DataFault.TWO_SERIES and kind in ("vector", "matrix"):
            result += [{**row, "metric": {**row["metric"], "replica": "b"}} for row in result]
        document: dict[str, object] = {"status": "success", "data": {"resultType": kind, "result": result}}
        if fault is DataFault.PARTIAL:
            document["warnings"] = ["a part of the data could not be read"]
        return self._json(200, document)

    def _query(self, evaluator: Evaluator, query: str, parameters: Mapping[str, str]) -> tuple[str, list[Any]]:
        at = _instant(parameters["time"]) if "time" in parameters else self._clock().timestamp()
        value = evaluator.evaluate(query, at)
        if isinstance(value, str):
            return "string", [at, value]
        if isinstance(value, float):
            return "scalar", [at, number_text(value)]
        rows, kind = [], "vector"
        for labels, each in value.items():
            if isinstance(each, float):
                rows.append({"metric": dict(sorted(labels)), "value": [at, number_text(each)]})
            else:
                kind = "matrix"
                rows.append({"metric": dict(sorted(labels)), "values": [[t, number_text(v)] for t, v in each]})
        return kind, rows

    def _written(self, answer: Answer) -> Reply:
        if answer.body is not None:
            return Reply(answer.status, answer.body.encode(), at=self._clock())
        return self._error(answer.status, answer.code or "unavailable", answer.message)

    def _error(self, status: int, kind: str, message: str) -> Reply:
        return self._json(status, {"status": "error", "errorType": kind, "error": message})

    def _json(self, status: int, document: Mapping[str, object]) -> Reply:
        return Reply(status, json.dumps(document).encode(), at=self._clock())


@dataclass(frozen=True, slots=True)
class _Faulty:
    """A recording whose samples are missing or worthless; their times are right."""

    recording: Recording
    fault: DataFault

    def newest(self, name: str, at: float) -> dict[Labels, tuple[float, float]]:
        found = self.recording.newest(name, at)
        return {} if self.fault is DataFault.EMPTY else {key: (t, self._bent(v)) for key, (t, v) in found.items()}

    def samples(self, name: str, start: float, end: float) -> dict[Labels, Samples]:
        found = self.recording.samples(name, start, end)
        if self.fault is DataFault.EMPTY:
            return {}
        return {key: [(t, self._bent(v)) for t, v in samples] for key, samples in found.items()}

    def _bent(self, value: float) -> float:
        match self.fault:
            case DataFault.NOT_A_NUMBER:
                return math.nan
            case DataFault.INFINITE:
                return math.inf
            case _:
                return value


def _range(evaluator: Evaluator, query: str, parameters: Mapping[str, str]) -> list[Any]:
    start, end, step = (parameters.get(name, "") for name in ("start", "end", "step"))
    first, last, pause = _instant(start), _instant(end), _step(step)
    if pause <= 0 or last < first:
        raise ValueError("step must be positive and end not before start")
    if (last - first) / pause > MOST_POINTS:
        raise ValueError(f"exceeded maximum resolution of {MOST_POINTS:,} points per timeseries")
    series: dict[Labels, list[tuple[float, str]]] = {}
    for number in range(int((last - first) / pause) + 1):
        at = first + number * pause
        value = evaluator.evaluate(query, at)
        vector: Vector | Matrix = value if isinstance(value, dict) else {NO_LABELS: _scalar(value)}
        for labels, each in vector.items():
            series.setdefault(labels, []).append((at, number_text(_scalar(each))))
    return [{"metric": dict(sorted(labels)), "values": values} for labels, values in series.items()]


def _scalar(value: object) -> float:
    if not isinstance(value, float):
        raise ValueError("a range query needs an instant vector or a scalar")
    return value


def number_text(value: float) -> str:
    """A value as Prometheus writes it: the shortest decimal without an exponent, ``NaN``, ``+Inf`` or ``-Inf``."""
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    text = format(Decimal(repr(value)), "f")
    return text.rstrip("0").rstrip(".") if "." in text else text


def _instant(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return datetime.fromisoformat(text).timestamp()


def _step(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return parse_duration(text) / timedelta(seconds=1)
