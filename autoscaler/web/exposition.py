"""/metrics, in the form that the scraper asks for."""

from fastapi import APIRouter, Request, Response
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder


def routes(registry: CollectorRegistry) -> APIRouter:
    """The route that shows ``registry``."""
    router = APIRouter()

    @router.get("/metrics")
    def metrics(request: Request) -> Response:
        encode, content_type = choose_encoder(request.headers.get("accept", ""))
        return Response(encode(registry), headers={"Content-Type": content_type})

    return router
