"""Every error as application/problem+json (RFC 9457): what is wrong and the mend, never what was sent."""

from collections.abc import Callable, Iterable, Mapping
from http import HTTPStatus

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException

from autoscaler.override import KeyReused, OrderProblem, OrderRefused
from autoscaler.purchase import CannotSettle

MEDIA_TYPE = "application/problem+json"
SERVER_ERROR = "the autoscaler made a mistake; its log says which"
_NOT_TAKEN = "the request is not what this takes"
_AS_JSON = "send an object with Content-Type: application/json"


class FieldProblem(BaseModel):
    """What is wrong with one part of a request."""

    model_config = ConfigDict(from_attributes=True)

    field: str
    what: str
    mend: str


class Problem(BaseModel):
    """Why a request was not carried out; nothing was changed by it."""

    type: str = "about:blank"
    title: str = Field(description="The status in words.")
    status: int
    detail: str = Field(description="What is wrong, and the mend.")
    errors: list[FieldProblem] = Field(default=[], description="Each part of the request that is wrong.")


class Refusal(Exception):
    """A request that is answered by a problem."""

    def __init__(self, status: int, detail: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.headers = headers


def answer(
    status: int, detail: str, errors: Iterable[OrderProblem] = (), headers: Mapping[str, str] | None = None
) -> Response:
    """The problem as a response."""
    problem = Problem(
        title=HTTPStatus(status).phrase,
        status=status,
        detail=detail,
        errors=[FieldProblem.model_validate(each) for each in errors],
    )
    return Response(problem.model_dump_json(), status, headers=headers, media_type=MEDIA_TYPE)


def install(app: FastAPI, failures: Mapping[type[Exception], int]) -> None:
    """Answer every error of ``app`` by a problem. ``failures``: exceptions whose text is the detail, and the status."""

    def tell(status: int) -> Callable[[Request, Exception], Response]:
        return lambda _request, error: answer(status, str(error))

    @app.exception_handler(Refusal)
    def refused(_: Request, error: Refusal) -> Response:
        return answer(error.status, error.detail, headers=error.headers)

    @app.exception_handler(OrderRefused)
    def order_refused(_: Request, error: OrderRefused) -> Response:
        return answer(422, "this cannot be ordered", error.problems)

    @app.exception_handler(RequestValidationError)
    def not_valid(_: Request, error: RequestValidationError) -> Response:
        return answer(422, _NOT_TAKEN, map(_of_pydantic, error.errors()))

    @app.exception_handler(HTTPException)
    def of_routing(request: Request, error: HTTPException) -> Response:
        if error.status_code == 400:  # the framework's word for a body that is no text, or too deep
            return answer(400, _NOT_TAKEN, [OrderProblem("body", "is not JSON", _AS_JSON)])
        details = {404: "there is nothing at this path", 405: "this path does not take this method"}
        return answer(error.status_code, details.get(error.status_code, error.detail), headers=error.headers)

    @app.exception_handler(Exception)
    def mistake(_: Request, _error: Exception) -> Response:
        return answer(500, SERVER_ERROR)

    for kind, status in {KeyReused: 409, CannotSettle: 409, **failures}.items():
        app.add_exception_handler(kind, tell(status))


def _of_pydantic(error: Mapping[str, object]) -> OrderProblem:
    if error.get("type") == "json_invalid":
        return OrderProblem("body", "is not JSON", _AS_JSON)
    place = error.get("loc", ())
    if place == ("body",) and error.get("type") == "model_attributes_type":
        return OrderProblem("body", "is not a JSON object", _AS_JSON)
    parts = place[1:] if isinstance(place, tuple) and len(place) > 1 else place
    field = ".".join(str(part) for part in parts) if isinstance(parts, tuple) else str(parts)
    what = str(error.get("msg", "is not valid")).removeprefix("Value error, ")  # the library's own words before ours
    return OrderProblem(field[:200] or "body", what, "see the API's openapi.json")
