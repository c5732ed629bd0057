"""The API's own description, as OpenAPI: every error is a problem, and whoever gives an order needs a token."""

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from autoscaler.web.problem import MEDIA_TYPE, Problem

_COMPONENT = "#/components/schemas/{model}"


def described(app: FastAPI, path: str) -> dict[str, Any]:
    """What ``app``, which answers below ``path``, takes and gives."""
    made = get_openapi(title=app.title, version=app.version, routes=app.routes, servers=[{"url": path}])
    schemas = made["components"]["schemas"]
    for name in ("HTTPValidationError", "ValidationError"):  # the framework's form of errors, which is not ours
        schemas.pop(name, None)
    problem = Problem.model_json_schema(ref_template=_COMPONENT)
    schemas |= problem.pop("$defs") | {"Problem": problem}
    made["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
    error = {
        "description": "It was not done, and why.",
        "content": {MEDIA_TYPE: {"schema": {"$ref": _COMPONENT.format(model="Problem")}}},
    }
    for operations in made["paths"].values():
        for method, operation in operations.items():
            operation["responses"].pop("422", None)
            operation["responses"]["default"] = error
            if method != "get":
                operation["security"] = [{"token": []}]
    return made
