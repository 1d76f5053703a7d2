"""The page in Chromium: it loads alone, sorts, enlarges, fits a phone, and can be used by everybody.

Needs the distribution's Chromium and the dependency group `playwright`.
"""

import importlib.util
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from made_run import HOSTILE, renamed, write_comparison, write_run

from gdd.data.readers import Dataset
from gdd.evaluation.row import Row
from gdd.report.page import sort_value, write_page

CHROMIUM = shutil.which("chromium")
FLAGS = [
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
]
_LACKS = CHROMIUM is None or any(importlib.util.find_spec(n) is None for n in ("playwright", "axe_playwright_python"))
pytestmark = pytest.mark.skipif(_LACKS, reason="needs Chromium and the dependency group playwright")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the page lies that all tests open."""
    return tmp_path_factory.mktemp("page")


@pytest.fixture
def opened(browser: Any, home: Path, dataset: Dataset, rows: list[Row]) -> Iterator[Any]:
    """Return a function that opens the page of a run, or of a comparison, with hostile names.

    Nothing may go wrong or be asked for.
    """
    paths = {name: home / f"{name}.html" for name in ("run", "comparison")}
    if not paths["run"].exists():
        write_page(paths["run"], [write_run(home / "runs/mine", dataset, rows)], lambda *_: dataset)
        write_page(paths["comparison"], [write_comparison(home / "runs/both/compare", rows)], lambda *_: dataset)
    wrong: list[str] = []
    asked: list[str] = []
    visited: list[str] = []
    pages: list[Any] = []

    def visit(width: int = 1280, scheme: str = "light", of: str = "run") -> Any:
        page = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme)
        page.on("console", lambda message: wrong.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        page.on("dialog", lambda dialog: wrong.append(dialog.message))
        visited.append(paths[of].as_uri())
        page.goto(visited[-1])
        pages.append(page)
        return page

    yield visit
    for page in pages:
        page.close()
    assert wrong == []
    assert [url for url in asked if not url.startswith("data:")] == visited


@pytest.fixture
def dataset(dataset: Dataset) -> Dataset:
    return renamed(dataset)


def column(page: Any, header: str) -> list[str]:
    """Return the cells of the first table's column, as they stand."""
    return page.evaluate(
        """header => {
            const table = document.querySelector("table");
            const index = [...table.tHead.rows[0].cells].findIndex(cell => cell.textContent === header);
            return [...table.tBodies[0].rows].map(row => row.cells[index].textContent);
        }""",
        header,
    )


def test_all_images_are_there(opened):
    page = opened()
    sizes = page.evaluate("[...document.images].map(image => [image.naturalWidth, image.alt])")
    assert len(sizes) == 2 * 300 + 1
    assert all(width > 0 and alt for width, alt in sizes)


def test_a_click_sorts_numbers_as_numbers_and_a_third_undoes_it(opened):
    page = opened()
    given = column(page, "mlp-w16")
    assert given == ["31.0 ± 1.0 (± 2.5)", "55.0 ± 5.0 (± 12.4)", "65.0 ± 6.0 (± 14.9)", "90.0 ± 0.0 (± 0.0)"]
    button = page.locator("table").first.get_by_role("button", name="mlp-w16")
    header = page.locator("table").first.locator("th", has_text="mlp-w16")
    for order, cells in (("ascending", given), ("descending", given[::-1]), ("none", given)):
        button.click()
        assert header.get_attribute("aria-sort") == order
        assert column(page, "mlp-w16") == cells


def test_keys_sort_and_one_column_at_a_time(opened):
    page = opened()
    table = page.locator("table").first
    table.get_by_role("button", name="IPC").focus()
    page.keyboard.press("Enter")
    assert column(page, "IPC") == ["1", "1", "1", "all"]
    page.keyboard.press("Space")
    assert column(page, "IPC") == ["all", "1", "1", "1"]
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Enter")
    names = column(page, "trained on")
    assert names == sorted(names)
    orders = table.locator("thead th").evaluate_all("all => all.map(one => one.ariaSort)")
    assert orders == ["ascending", *["none"] * 5]


def test_numbers_of_many_forms_are_in_order_and_blanks_last(opened):
    page = opened()
    cells = ["1,200", "9.5 ± 3.0", "", "-3.1", "+10.0 ± 2.5, n = 2", "failed", "anew: 100"]
    order = ["-3.1", "9.5 ± 3.0", "+10.0 ± 2.5, n = 2", "anew: 100", "1,200"]
    page.evaluate(
        """cells => {
            const row = document.querySelector("tbody tr");
            const lines = cells.map(([text, value]) => {
                const line = row.cloneNode(true);
                line.cells[1].textContent = text;
                delete line.cells[1].dataset.value;
                if (value !== null) line.cells[1].dataset.value = value;
                return line;
            });
            const body = document.querySelector("tbody");
            body.replaceChildren();
            sort(body, lines, 1, "ascending");
        }""",
        [[cell, sort_value(cell)] for cell in cells],
    )
    assert column(page, "IPC") == [*order, "", "failed"]


def test_a_dialog_opens_and_closes_by_keys_and_gives_the_focus_back(opened):
    page = opened()
    button = page.locator("button.enlarge:has(.distance)").first
    button.focus()
    for key in ("Escape", "Enter"):
        page.keyboard.press("Enter")
        dialog = page.get_by_role("dialog")
        assert dialog.is_visible()
        assert dialog.locator("img").count() == 2
        assert dialog.get_by_role("button", name="Close").evaluate("one => one === document.activeElement")
        assert dialog.evaluate("one => document.getElementById('caption').textContent").startswith(
            "Synthetic image of <script>alert(1)</script>, and the nearest real training image, of "
        )
        page.keyboard.press(key)
        assert not dialog.is_visible()
        assert button.evaluate("one => one === document.activeElement")


def test_a_click_enlarges_and_one_beside_closes(opened):
    page = opened()
    small = page.locator("button.enlarge img").first
    small.click()
    large = page.locator("dialog img").first
    assert large.bounding_box()["width"] > 2 * small.bounding_box()["width"]
    assert large.evaluate("one => getComputedStyle(one).imageRendering") == "pixelated"
    page.mouse.click(2, 2)
    assert not page.get_by_role("dialog").is_visible()


def test_keys_go_through_the_marks_of_a_chart_and_each_tells_its_command(opened):
    page = opened(of="comparison")
    chart = page.locator(".scatter svg").first
    names = chart.locator("a").evaluate_all("all => all.map(one => one.getAttribute('aria-label'))")
    assert len(names) == 6
    assert chart.locator("a[tabindex='0']").count() == 1
    told, focused = page.locator(".chosen"), "document.activeElement.getAttribute('aria-label')"
    assert not told.is_visible()
    page.get_by_role("link", name="Provenance").focus()
    page.keyboard.press("Tab")
    for key, place in ((None, 0), ("ArrowRight", 1), ("ArrowDown", 2), ("ArrowLeft", 1), ("End", 5), ("Home", 0)):
        if key is not None:
            page.keyboard.press(key)
        assert page.evaluate(focused) == names[place]
        assert told.locator(".name").text_content() == names[place]
        assert told.is_visible()
    for shortcut in ("Alt+ArrowRight", "Control+End"):
        page.keyboard.press(shortcut)  # are the browser's
        assert page.evaluate(focused) == names[0]
    page.keyboard.press("Enter")
    command = page.evaluate("document.activeElement.textContent")
    assert command == told.locator("pre").text_content()
    assert command.startswith("gdd compare ")
    page.keyboard.press("Escape")
    assert page.evaluate(focused) == names[0]
    page.keyboard.press("Tab")  # the next chart has but one place in the order of Tab
    page.keyboard.press("Shift+Tab")
    assert page.evaluate(focused) == names[0]


def test_the_mark_that_is_nearest_is_told_and_a_click_keeps_it(opened):
    page = opened(of="comparison")
    chart, told = page.locator(".scatter").first, page.locator(".chosen .name")
    mark, other = (chart.locator(f"a[aria-label*='{name}']").first for name in ("alert(2)", "script"))
    mark.locator(".target").scroll_into_view_if_needed()

    def point(at: Any, right: float = 0.0) -> tuple[float, float]:
        box = at.locator(".target").bounding_box()
        return box["x"] + box["width"] / 2 + right, box["y"] + box["height"] / 2

    page.mouse.move(*point(mark, right=3))
    assert told.text_content() == mark.get_attribute("aria-label")
    assert page.locator(".scatter a.shown").count() == 2  # in both charts
    assert f"runs/{HOSTILE[1]}" in page.locator(".chosen pre").text_content()
    page.mouse.move(*point(other))
    assert told.text_content() == other.get_attribute("aria-label")
    page.mouse.click(*point(mark))
    assert mark.evaluate("one => one === document.activeElement")
    page.mouse.move(*point(other))
    assert told.text_content() == mark.get_attribute("aria-label")
    page.locator(".chosen pre").click()  # to copy it
    page.mouse.move(*point(other))
    assert told.text_content() == mark.get_attribute("aria-label")
    page.evaluate("document.activeElement.blur(); scrollTo(0, document.querySelector('.scatter').offsetTop)")
    page.mouse.move(*point(other, right=1))
    assert told.text_content() == other.get_attribute("aria-label")


@pytest.mark.parametrize("width", [375, 1280])
def test_what_is_told_hides_no_mark_that_has_the_focus(opened, width):
    page = opened(width, of="comparison")
    marks = page.locator(".scatter a")
    for index in range(marks.count()):
        marks.nth(index).focus()
        mark, told = marks.nth(index).locator(".target").bounding_box(), page.locator(".chosen").bounding_box()
        assert mark["y"] + mark["height"] <= told["y"]


def test_without_a_script_all_points_are_listed_with_their_commands(browser, opened, home):
    opened(of="comparison")
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto((home / "comparison.html").as_uri())
    page.locator(".choice summary").click()
    assert page.locator(".points pre:visible").count() == page.locator(".points li").count() == 6
    context.close()


@pytest.mark.parametrize("of", ["run", "comparison"])
@pytest.mark.parametrize("width", [375, 768, 1280])
def test_it_is_no_wider_than_the_window(opened, width, of):
    page = opened(width, of=of)
    for unfold in (False, True):
        page.evaluate("open => document.querySelectorAll('details').forEach(one => one.open = open)", unfold)
        assert page.evaluate("document.documentElement.scrollWidth") == width


@pytest.mark.parametrize("of", ["run", "comparison"])
@pytest.mark.parametrize(("width", "scheme"), [(375, "dark"), (1280, "light")])
def test_axe_finds_nothing_serious(opened, width, scheme, of):
    from axe_playwright_python.sync_playwright import Axe

    page = opened(width, scheme, of)
    for mark in page.locator(".scatter a").all()[:1]:
        mark.focus()
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert ground == {"light": "rgb(255, 255, 255)", "dark": "rgb(21, 21, 21)"}[scheme]
    page.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")
    found = Axe().run(page).response["violations"]
    assert [(one["id"], one["nodes"][0]["html"]) for one in found if one["impact"] in ("serious", "critical")] == []


def test_axe_would_find_something(opened):
    """Without text that stands for an image, and with one that is too pale."""
    from axe_playwright_python.sync_playwright import Axe

    page = opened()
    page.evaluate("document.images[0].removeAttribute('alt'); document.querySelector('h1').style.color = '#ddd'")
    found = {one["id"]: one["impact"] for one in Axe().run(page).response["violations"]}
    assert found["image-alt"] == "critical"
    assert found["color-contrast"] == "serious"
