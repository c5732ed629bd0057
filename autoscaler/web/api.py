"""The HTTP API, /api/v1: what there is to see, and orders.

An application of its own below the daemon's, with its own description at /api/v1/openapi.json. Reads are open or need a
token, as the settings say; whoever gives an order needs one, and is its author.
"""

from collections.abc import Callable, Coroutine, Sequence
from typing import Annotated, Any, TypeVar

from fastapi import Depends, FastAPI, Header, Path, Query, Request, Response
from fastapi.routing import APIRoute

from autoscaler import __version__
from autoscaler.budget import room
from autoscaler.model import PurchaseState
from autoscaler.purchase import terms
from autoscaler.web import problem
from autoscaler.web.access import Access
from autoscaler.web.description import described
from autoscaler.web.desk import Desk
from autoscaler.web.forms import Id, OrderForm, ReasonForm, SettleForm
from autoscaler.web.order_views import (
    ArrivalView,
    EventView,
    OverrideView,
    PlacedView,
    PreviewView,
    PurchaseDetailView,
    PurchaseView,
)
from autoscaler.web.problem import Refusal
from autoscaler.web.views import DecisionView, Page, PolicyView, RoomView, StandingView, WhyView

PATH = "/api/v1"
_MOST = 500  # items of one page

T = TypeVar("T")
V = TypeVar("V")


def _author(request: Request) -> str:
    """Whose token came with the request."""
    author: str = request.state.author
    return author


Limit = Annotated[int, Query(ge=1, le=_MOST, description="The most items of one page.")]
BeforeId = Annotated[Id | None, Query(alias="cursor", description="`next` of the page before.")]
PathId = Annotated[Id, Path()]
Author = Annotated[str, Depends(_author)]
Key = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        min_length=1,
        max_length=200,
        pattern=r"^[!-~]+$",
        description="Repeated by its author within 24 h it gives the same order again.",
    ),
]


def create_api(desk: Desk) -> FastAPI:
    """The API over ``desk``, to be mounted at ``PATH``."""
    app = FastAPI(
        title="autoscaler", version=__version__, docs_url=None, redoc_url=None, openapi_url=None, redirect_slashes=False
    )
    problem.install(app, desk.failures)
    app.router.route_class = _behind(desk.access)
    reads, orders = desk.reads, desk.orders

    @app.get("/openapi.json", include_in_schema=False)
    def description(request: Request) -> Any:
        return described(request.app, PATH)

    @app.get("/policies")
    def policies(
        limit: Limit = 100,
        cursor: Annotated[str | None, Query(max_length=200)] = None,
        attention: Annotated[bool, Query(description="Only those that need a person.")] = False,
    ) -> Page[StandingView]:
        """Where every policy stands, by name."""
        found = sorted(desk.overview().policies, key=lambda standing: standing.name)
        rest = [s for s in found if (cursor is None or s.name > cursor) and (s.attention or not attention)]
        return _page(rest, limit, StandingView.of, lambda standing: standing.name)

    @app.get("/policies/{name}")
    def policy(name: Annotated[str, Path(max_length=200)]) -> PolicyView:
        """Where one policy stands, what it says, and what its budgets leave."""
        standing = desk.overview().standing(name)
        if standing is None:
            raise Refusal(404, "there is no policy of this name")
        known = standing.policy
        rooms = []
        if known is not None:
            purchases = reads.histories([known], desk.clock())[known.name].purchases
            rooms = room(known.limits.budgets, known.name, purchases, terms(known), desk.clock())
        return PolicyView(
            standing=StandingView.of(standing),
            policy=None if known is None else known.model_dump(mode="json", exclude_none=True),
            rooms=[RoomView.of(each) for each in rooms],
        )

    @app.get("/decisions")
    def decisions(
        limit: Limit = 50, cursor: BeforeId = None, policy: Annotated[str | None, Query(max_length=200)] = None
    ) -> Page[DecisionView]:
        """Decisions that said something new, newest first."""
        found = reads.decisions(policy=policy, before_id=cursor, limit=limit + 1)
        return _page(found, limit, lambda stored: DecisionView.of(stored.decision, stored.id), lambda stored: stored.id)

    @app.get("/decisions/{id:int}")
    def decision(id: PathId) -> WhyView:
        """A decision with all it rested on, decided again from that."""
        evaluation = reads.evaluation(id)
        if evaluation is None:
            raise Refusal(404, f"there is no decision {id} any more or yet")
        return WhyView.of(id, evaluation)

    @app.get("/purchases")
    def purchases(
        limit: Limit = 50,
        cursor: BeforeId = None,
        policy: Annotated[str | None, Query(max_length=200)] = None,
        state: Annotated[list[PurchaseState] | None, Query(max_length=len(PurchaseState))] = None,
    ) -> Page[PurchaseView]:
        """Purchases, newest first."""
        found = reads.purchases(policy=policy, states=state, before_id=cursor, limit=limit + 1)
        return _page(found, limit, PurchaseView.of, lambda purchase: purchase.id)

    @app.get("/purchases/{id:int}")
    def purchase(id: PathId) -> PurchaseDetailView:
        """A purchase with all that happened to it."""
        found = reads.purchase(id)
        if found is None:
            raise Refusal(404, f"there is no purchase {id}")
        return PurchaseDetailView(
            purchase=PurchaseView.of(found),
            events=[EventView.model_validate(event) for event in reads.purchase_events(id)],
            arrivals=[ArrivalView.model_validate(arrival) for arrival in found.arrivals],
        )

    @app.get("/overrides")
    def overrides(
        limit: Limit = 50,
        cursor: BeforeId = None,
        active: Annotated[bool, Query(description="Only those in force, all of them.")] = False,
    ) -> Page[OverrideView]:
        """Orders of people, newest first."""
        if active:
            found = desk.overview().overrides[::-1]
            rest = [order for order in found if cursor is None or order.id < cursor]
        else:
            rest = list(reads.override_history(before_id=cursor, limit=limit + 1))
        now, progress = desk.clock(), desk.progress(rest[:limit])
        return _page(
            rest, limit, lambda order: OverrideView.of(order, now, progress.get(order.id, ())), lambda order: order.id
        )

    @app.get("/overrides/{id:int}")
    def override(id: PathId) -> OverrideView:
        """One order."""
        found = reads.override(id)
        return OverrideView.of(found, desk.clock(), desk.progress([found]).get(id, ()))

    @app.post("/overrides", status_code=201)
    def place(author: Author, order: OrderForm, response: Response, key: Key = None) -> PlacedView:
        """Give an order. The next evaluation obeys it, within 2 s."""
        placed = orders.place(order.asked(author), key)
        response.headers["Location"] = f"{PATH}/overrides/{placed.override.id}"
        return PlacedView.of(placed, desk.clock())

    @app.post("/overrides/preview")
    def preview(author: Author, order: OrderForm) -> PreviewView:
        """What an order would do now; nothing is recorded."""
        return PreviewView.of(orders.preview(order.asked(author)))

    @app.post("/overrides/{id:int}/end")
    def end(author: Author, id: PathId, why: ReasonForm) -> OverrideView:
        """End an order early. The first end wins."""
        ended = orders.end(id, author, why.reason)
        return OverrideView.of(ended, desk.clock(), desk.progress([ended]).get(id, ()))

    @app.post("/purchases/{id:int}/settle")
    def settle(author: Author, id: PathId, fate: SettleForm) -> PurchaseView:
        """Say what became of a purchase of unknown outcome; said again in the same words it stays said."""
        return PurchaseView.of(orders.settle(id, fate.bought or None, author, fate.reason))

    @app.post("/purchases/{id:int}/retry")
    def retry(author: Author, id: PathId, why: ReasonForm) -> PurchaseView:
        """Say that what a purchase was refused for is mended."""
        return PurchaseView.of(orders.retry(id, author, why.reason))

    return app


def _behind(access: Access) -> type[APIRoute]:
    """Routes that ask first who it is: the framework would read the body before any dependency."""

    class Route(APIRoute):
        def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
            answer = super().get_route_handler()

            async def ask_first(request: Request) -> Response:
                if request.method in ("GET", "HEAD"):
                    await access.reader(request)
                else:
                    request.state.author = await access.author(request)
                return await answer(request)

            return ask_first

    return Route


def _page(found: Sequence[T], limit: int, view: Callable[[T], V], cursor: Callable[[T], object]) -> Page[V]:
    """One page of what was found, which goes on where that is more than ``limit``."""
    shown = found[:limit]
    return Page(items=[view(each) for each in shown], next=str(cursor(shown[-1])) if len(found) > limit else None)
