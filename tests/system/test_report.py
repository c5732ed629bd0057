"""The report of a simulation in a real browser: nothing runs, nothing is asked for, nothing sticks out, all is told."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from click.testing import CliRunner
from playwright.sync_api import Browser, Page, sync_playwright

from autoscaler.cli import main
from tests.system.conftest import missing

pytestmark = pytest.mark.system

ROOT = Path(__file__).parent.parent.parent
WIDE, NARROW = {"width": 1280, "height": 900}, {"width": 375, "height": 740}


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example policy and two variants over the sample of real load."""
    path = tmp_path_factory.mktemp("report") / "report.html"
    result = CliRunner().invoke(
        main,
        [
            "simulate",
            str(ROOT / "policies" / "edge-beijing.yaml"),
            *("--load", str(ROOT / "policies" / "samples" / "worldcup98.csv")),
            *("--set", "limits.per_action=10", "--set", "headroom=40%, stabilization_window=0s, cooldown=5m"),
            *("--failing", "10%", "--report", str(path)),
        ],
    )
    assert result.exit_code == 0, result.output
    return path


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    chromium = shutil.which("chromium")
    if chromium is None:
        missing("chromium", "apt-get install --no-install-recommends chromium")
    flags = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-background-networking"]
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=chromium, args=flags)
        yield running
        running.close()


def opened(browser: Browser, report: Path, size: dict[str, int], scheme: str) -> tuple[Page, list[str], list[str]]:
    """The page with everything unfolded, what it asked for, and what the browser complained about."""
    page = browser.new_page(viewport=size, color_scheme=scheme)  # type: ignore[arg-type]
    asked: list[str] = []
    complaints: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda message: complaints.append(message.text))
    page.goto(report.as_uri())
    folded = page.locator("details:not([open]) > summary")
    while folded.count():
        folded.first.click()
    return page, asked, complaints


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [WIDE, NARROW], ids=["wide", "narrow"])
def test_the_page_is_whole_by_itself_and_fits(
    browser: Browser, report: Path, size: dict[str, int], scheme: str
) -> None:
    page, asked, complaints = opened(browser, report, size, scheme)
    assert asked == [report.as_uri()]
    assert complaints == []
    assert page.locator("script").count() == 0
    width = page.evaluate("document.documentElement.scrollWidth")
    assert width == size["width"]
    shown = [chart.bounding_box() for chart in page.locator("svg.chart:visible").all()]
    assert len(shown) == page.locator("svg.chart").count() / 2 >= 2
    for box in shown:
        assert box is not None
        assert 0.75 < box["width"] / (1040 if size is WIDE else 350) < 1.25  # its letters keep their size
    page.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nobody_is_shut_out(browser: Browser, report: Path, scheme: str) -> None:
    page, _, _ = opened(browser, report, WIDE, scheme)
    found = Axe().run(page).response["violations"]
    assert [(each["id"], each["impact"]) for each in found if each["impact"] in ("serious", "critical")] == []
    page.close()


def test_what_it_tells(browser: Browser, report: Path) -> None:
    page, _, _ = opened(browser, report, WIDE, "light")
    assert page.title() == "Simulation of edge-beijing"
    rows = page.get_by_role("region", name="Comparison").get_by_role("row")
    bought = rows.filter(has_text="workers bought").get_by_role("cell").all_inner_texts()
    assert len(bought) == 3
    assert all(int(number) > 0 for number in bought)
    assert page.get_by_role("heading", level=2).all_inner_texts() == [
        "edge-beijing",
        "limits.per_action=10",
        "headroom=40%, stabilization_window=0s, cooldown=5m",
    ]
    assert page.get_by_text("10.0% of the workers never join (seed 0)").count() == 3
    assert page.locator("pre").first.inner_text().startswith("description: Live edge, Beijing")
    page.close()
