"""The page in a real browser: a night on call with the daemon beside it, and what holds for every page of it.

Whatever a test does, each browser in it asks no other host for anything and has nothing to complain of: no error of
the script, and nothing that the Content-Security-Policy forbids.
"""

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect, sync_playwright
from prometheus_client import CollectorRegistry

from autoscaler.web import Server, create_app, serve
from tests.build import at, capacity, workers
from tests.counter import ANA, EDGE, Counter
from tests.system.conftest import missing
from tests.system.prometheus_server import PrometheusServer
from tests.system.site import API_TOKEN, PER_WORKER, Site
from tests.test_web import FakeVitals

pytestmark = [pytest.mark.system, pytest.mark.timeout(180)]

PATIENCE = 20_000  # ms
WIDE, PHONE, TABLET = ({"width": w, "height": h} for w, h in ((1280, 800), (360, 740), (800, 1100)))
PAGES = (
    *("/", "/policies/edge", "/decisions", "/decisions/1", "/purchases", "/purchases/7", "/orders", "/orders/1/end"),
    *("/order?kind=buy&policies=edge&workers=3&end=1h&reason=derby&preview=1", "/order?preview=1", "/sign-in", "/none"),
)
# An answer of 4xx is a page here; the browser's log calls each of them an error.
STATUS = "Failed to load resource: the server responded with a status of 4"


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """Debian's Chromium, shared by the module."""
    program = shutil.which("chromium")
    if program is None:
        missing("chromium", "apt-get install --no-install-recommends chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=program,
            args=["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-background-networking"],
        )
        expect.set_options(timeout=PATIENCE)
        yield browser
        browser.close()


@pytest.fixture
def counter() -> Counter:
    """Something of everything to show."""
    counter = Counter()
    counter.come_alive()
    return counter


@pytest.fixture
def server(counter: Counter) -> Iterator[Server]:
    """The page of ``counter``."""
    with serve(create_app(FakeVitals(), CollectorRegistry(), counter.desk()), "127.0.0.1", 0) as server:
        yield server


class Visit:
    """A browser of its own at the page, and what it asked for and complained of."""

    def __init__(self, chromium: Browser, url: str, **options: object) -> None:
        self._url = url
        self._context = chromium.new_context(base_url=url, **options)  # type: ignore[arg-type]
        self._context.set_default_timeout(PATIENCE)
        self.page: Page = self._context.new_page()
        self.asked: list[str] = []
        self.complaints: list[str] = []
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("console", lambda said: self._hear(said.type, said.text))

    def _hear(self, kind: str, text: str) -> None:
        if kind in ("error", "warning") and not text.startswith(STATUS):
            self.complaints.append(text)

    def foreign(self) -> list[str]:
        """Addresses of others that were asked for."""
        return [url for url in self.asked if not url.startswith(f"{self._url}/")]

    def close(self) -> None:
        self._context.close()


@contextmanager
def visiting(chromium: Browser, url: str, **options: object) -> Iterator[Page]:
    """Visit the page; fails at the end if something else was asked for, or the browser complains."""
    visit = Visit(chromium, url, **options)
    try:
        yield visit.page
        assert visit.foreign() == []
        assert visit.complaints == []
    finally:
        visit.close()


def sign_in(page: Page, token: str = ANA) -> None:
    page.goto("/sign-in")
    page.get_by_label("API token").fill(token)
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("button", name="Sign out")).to_be_visible()


def order(page: Page, reason: str, **fields: str) -> None:
    """Fill in the form that is open, and have it show what it would do."""
    for name, value in {**fields, "Reason": reason}.items():
        page.get_by_label(name, exact=True).fill(value)
    page.get_by_role("button", name="Show what it would do").click()


def test_a_night_on_call(chromium: Browser, tmp_path: Path, prometheus: PrometheusServer) -> None:
    with Site(tmp_path, prometheus) as site:
        daemon = site.begin()
        url = daemon.until("where it listens", lambda: daemon.events("web.listening"), within=10)[0]["url"]
        with visiting(chromium, url, viewport=WIDE) as page:
            sign_in(page, API_TOKEN)
            edge = page.locator("#policy-edge")
            expect(edge).to_contain_text("hold at 4")

            # Freeze it: the daemon holds with that reason although the load is high, and the page says so by itself.
            edge.get_by_role("link", name="edge", exact=True).click()
            page.get_by_role("link", name="Freeze…").click()
            order(page, "billing looks wrong", **{"For how long, or until when": "30m"})
            page.get_by_role("button", name="Freeze 1 policy").click()
            expect(page.get_by_role("heading", name="Order 1 is in force")).to_be_visible()
            site.sessions = 7 * PER_WORKER
            page.get_by_role("link", name="All policies").click()
            expect(edge).to_contain_text(
                re.compile(r'would buy 3 but frozen by oncall until .* \("billing looks wrong"\)')
            )
            expect(page.locator("#summary")).to_contain_text("1 needs a person")
            daemon.until("the log says so too", lambda: daemon.reasons()[-1] == "freeze", within=10)
            assert site.bought_once() == []

            # End it, once the load is what it was.
            site.sessions = 4 * PER_WORKER
            daemon.until("there are enough", lambda: daemon.reasons()[-1] == "enough", within=20)
            page.get_by_role("link", name="End…").click()
            page.get_by_label("Why it ends").fill("billing is right")
            page.get_by_role("button", name="End it now").click()
            expect(page.get_by_text("No order is in force.")).to_be_visible()

            # Buy two, by a button that is pressed twice, from a cloud whose answer is lost.
            site.cloud.order("fault", fault={"kind": "cut", "sold": True})
            page.goto("/policies/edge")
            page.get_by_role("link", name="Buy…").click()
            order(page, "second ingest", Workers="2")
            expect(page.get_by_text("In all 2 workers for 360 CNY, at once.")).to_be_visible()
            page.get_by_role("button", name="Buy 2 workers").dblclick()
            expect(page.get_by_role("heading", name="Order 2 is in force")).to_be_visible()
            daemon.until("it was sent", lambda: site.states() == ["unknown"], within=20)
            assert site.bought_once() == [2]

            # Nobody knows what became of it: it stands on top, and is settled by who has looked.
            page.goto("/")
            expect(edge).to_contain_text("nobody knows whether purchase 1 bought its 2 workers")
            edge.get_by_role("link", name="Settle…").click()
            page.get_by_label("Nothing was bought").check()
            page.get_by_label("Reason", exact=True).fill("nothing in the console")
            page.get_by_role("button", name="Record it").click()
            expect(page.get_by_role("alert").filter(has_text="may still be carried out")).to_be_visible()
            assert site.states() == ["unknown"]
            page.get_by_label("It was bought").check()
            page.get_by_label("Reason", exact=True).fill("two in the console")
            page.get_by_role("button", name="Record it").click()
            expect(page.get_by_text("Recorded, in your name.")).to_be_visible()
            daemon.until("its workers carry load", lambda: site.ready() == 6, within=20)
            page.goto("/purchases")
            expect(page.locator("#purchase-1")).to_contain_text("For order 2.")
            daemon.evaluates(3, within=15)
            assert site.bought_once() == [2]
            assert [p.order_id for p in site.purchases()] == [2]


@pytest.mark.parametrize(
    ("viewport", "scheme"),
    [
        pytest.param(WIDE, "light", id="wide and light"),
        pytest.param(WIDE, "dark", id="wide and dark"),
        pytest.param(PHONE, "light", id="a phone, light"),
        pytest.param(TABLET, "light", id="a tablet, light"),
        pytest.param(PHONE, "dark", id="a phone, dark"),
    ],
)
def test_every_page_is_for_everybody(chromium: Browser, server: Server, viewport: dict[str, int], scheme: str) -> None:
    """No rule of axe is broken, and nothing sticks out sideways."""
    with visiting(chromium, server.url, viewport=viewport, color_scheme=scheme, bypass_csp=True) as page:
        sign_in(page)
        for path in PAGES:
            page.goto(path)
            broken = Axe().run(page).response["violations"]
            assert [(rule["id"], [node["html"] for node in rule["nodes"]][:3]) for rule in broken] == [], path
            assert page.evaluate("document.documentElement.scrollWidth") <= viewport["width"], path
            hidden = "[...document.querySelectorAll('.wide')].filter((panel) => panel.scrollWidth > panel.clientWidth)"
            assert page.evaluate(f"{hidden}.length") == 0, path


def test_every_page_keeps_to_the_policy_of_its_own_content(chromium: Browser, server: Server) -> None:
    with visiting(chromium, server.url, viewport=WIDE) as page:
        sign_in(page)
        for path in PAGES:
            page.goto(path)
            expect(page.locator("h1")).to_be_visible()
            assert page.evaluate("getComputedStyle(document.querySelector('.bar')).borderBottomStyle") == "solid"


def test_what_a_page_must_not_do_would_be_noticed(chromium: Browser, server: Server) -> None:
    visit = Visit(chromium, server.url)
    try:
        visit.page.goto("/")
        visit.page.evaluate("document.body.insertAdjacentHTML('beforeend', '<p style=\"color: red\">')")
        visit.page.evaluate("fetch('http://127.0.0.2:9/').catch(() => 0)")
        assert any("Content Security Policy" in complaint for complaint in visit.complaints)
        assert visit.page.evaluate("getComputedStyle(document.body.lastElementChild).color") != "rgb(255, 0, 0)"
    finally:
        visit.close()


def test_everything_works_without_script(chromium: Browser, server: Server, counter: Counter) -> None:
    with visiting(chromium, server.url, viewport=PHONE, java_script_enabled=False) as page:
        sign_in(page)
        page.get_by_role("searchbox").fill("other")
        page.get_by_role("searchbox").press("Enter")
        expect(page.locator("#policy-edge")).to_have_count(0)
        page.get_by_label("Tick other").check()
        page.get_by_role("button", name="Order for those ticked…").click()
        page.get_by_label("cap").check()
        order(page, "no more of these", Workers="12")
        page.get_by_role("button", name="Set the cap for 1 policy").click()
        expect(page.get_by_role("heading", name="is in force")).to_be_visible()
        page.goto("/policies/edge")
        page.locator("summary").first.click()
        expect(page.get_by_role("rowheader", name="demand").first).to_be_visible()
    (cap,) = (order for order in counter.memory.overrides(counter.now) if order.kind == "cap")
    assert (cap.policies, cap.workers, cap.author) == (("other",), 12, "ana")


def test_the_keyboard_is_enough(chromium: Browser, server: Server) -> None:
    with visiting(chromium, server.url, viewport=WIDE) as page:
        page.goto("/")
        page.keyboard.press("Tab")
        expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
        page.keyboard.press("Enter")
        assert page.evaluate("document.activeElement.id") == "main"
        page.keyboard.press("Tab")
        expect(page.get_by_role("link", name="Freeze everything…")).to_be_focused()
        assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"


def test_the_script_keeps_the_page_fresh_and_leaves_the_reader_in_peace(
    chromium: Browser, server: Server, counter: Counter
) -> None:
    with visiting(chromium, server.url, viewport=WIDE) as page:
        page.clock.install()
        page.goto("/policies/edge")
        page.locator("summary").nth(1).click()
        page.locator("summary").nth(1).focus()
        opened = page.locator("details[open]")
        expect(opened).to_have_count(1)
        said = opened.locator("summary").inner_text()

        counter.now = at(minutes=1)
        counter.evaluate(EDGE, 6800, capacity=capacity(workers(11), at=counter.now))
        page.clock.run_for(6_000)
        expect(page.locator(".lead")).to_contain_text("wants 17 (6800 at 400 each)")
        expect(page.locator("#fresh")).to_have_text("as of 12:01:00Z")
        assert opened.count() == 1
        assert opened.locator("summary").inner_text().split("\n")[1:] == said.split("\n")[1:]
        assert page.evaluate("document.activeElement.parentElement.open") is True


def test_a_filter_is_applied_as_it_is_typed(chromium: Browser, server: Server) -> None:
    with visiting(chromium, server.url, viewport=WIDE) as page:
        page.goto("/")
        filter = page.get_by_role("searchbox")
        filter.press_sequentially("othe", delay=20)
        expect(page.locator("#policy-edge")).to_have_count(0)
        expect(page.locator("#policy-other")).to_have_count(1)
        expect(filter).to_be_focused()
        assert page.url.endswith("/?q=othe")
        filter.fill("")
        expect(page.locator("#policy-edge")).to_have_count(1)


def test_a_daemon_that_does_not_answer_is_told(chromium: Browser, counter: Counter) -> None:
    app = create_app(FakeVitals(), CollectorRegistry(), counter.desk())
    with serve(app, "127.0.0.1", 0) as first:
        visit = Visit(chromium, first.url, viewport=WIDE)
        page = visit.page
        page.clock.install()
        page.goto("/")
        page.wait_for_load_state("networkidle")
    try:
        page.clock.run_for(6_000)
        expect(page.get_by_role("alert")).to_contain_text("The daemon does not answer. What you see is from 12:00:00Z")
        expect(page.locator("#policy-edge")).to_have_count(1)
        with serve(app, "127.0.0.1", first.port):
            page.clock.run_for(6_000)
            expect(page.get_by_role("alert")).to_have_count(0)
    finally:
        visit.close()
