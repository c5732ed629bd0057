"""The page of the person on call: server-rendered, useful without script, and in the same words as every surface."""

from fastapi import Depends, FastAPI

from autoscaler.web.desk import Desk
from autoscaler.web.page import buying, entry, ordering, reading
from autoscaler.web.page.frame import Frame
from autoscaler.web.page.texts import load_texts


def create_page(desk: Desk) -> FastAPI:
    """The application that answers at every path that is nobody else's, by a page where there is none too."""
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None, redirect_slashes=False)
    frame = Frame(desk, load_texts())
    frame.install(app, desk.failures)
    app.include_router(frame.files())
    app.include_router(entry.routes(frame, desk.access))
    for pages in (reading, buying, ordering):
        app.include_router(pages.routes(frame, desk), dependencies=[Depends(frame.reader)])
    return app
