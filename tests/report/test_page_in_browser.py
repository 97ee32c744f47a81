"""The page in a real Chromium: it renders, sorts, shows its tips, prints, and its console stays empty."""

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from gguf_golf.report import write_report
from tests.report.documents import document, ladder, task
from tests.report.test_page import hostile


@pytest.fixture
def page(browser: Any, tmp_path: Path) -> Any:
    """Opens a report of the ladder; afterwards the console must be empty and nothing may have been fetched."""
    browser.get_log("browser")  # what other pages left there
    models = ladder()
    for model in models:
        flips = {"lost": ["q1"], "gained": ["q2"], "mcnemar_p": 1.0, "retained": 0.9}
        model["tasks"] = {"arc": task(0.5, 0.4, 0.6, **flips)}
    show(browser, tmp_path, document(*models))
    yield browser
    assert browser.get_log("browser") == []
    assert browser.execute_script("return performance.getEntriesByType('resource').length") == 0


def show(browser: Any, folder: Path, results: dict[str, Any]) -> None:
    path = folder / "r.json"
    path.write_text(json.dumps(results))
    write_report(path, folder / "page.html")
    browser.set_window_size(1200, 900)
    browser.get((folder / "page.html").as_uri())


def names(browser: Any) -> list[str]:
    script = "return [...document.querySelectorAll('.sortable tbody th')].map((th) => th.dataset.v)"
    return [name.removeprefix("golf-").removesuffix(".gguf") for name in browser.execute_script(script)]


def heading(browser: Any, text: str) -> Any:
    return browser.find_element("xpath", f"//table[contains(@class, 'sortable')]//button[text()='{text}']")


def test_the_verdict_is_seen_first(page: Any) -> None:
    headline = page.find_element("css selector", ".headline")
    assert headline.text.startswith("Take golf-tcq3.gguf")
    assert headline.rect["y"] + headline.rect["height"] < 400
    drawn = page.execute_script("return document.querySelectorAll('.plot .dot').length")
    assert drawn == 5 * 4  # five files on KLD, top-1, perplexity and the task


def test_sorting(page: Any) -> None:
    assert names(page) == ["bf16", "q8", "q4", "tcq3", "wasteful", "tiny"]
    heading(page, "size").click()
    assert names(page) == ["bf16", "tiny", "tcq3", "wasteful", "q4", "q8"]
    heading(page, "size").click()
    assert names(page) == ["bf16", "q8", "q4", "wasteful", "tcq3", "tiny"]
    heading(page, "KLD").click()
    assert names(page) == ["bf16", "q8", "q4", "tcq3", "wasteful", "tiny"]
    heading(page, "file").click()
    assert names(page) == ["bf16", "q4", "q8", "tcq3", "tiny", "wasteful"]
    sorted_by = page.execute_script("return [...document.querySelectorAll('[aria-sort]:not([aria-sort=none])')].length")
    assert sorted_by == 1


def test_tips(page: Any) -> None:
    tip = page.find_element("id", "tip")
    assert not tip.is_displayed()
    page.execute_script("document.querySelector('.point').focus()")
    assert tip.is_displayed() and "golf-q8.gguf" in tip.text and "8.00 MB" in tip.text
    page.execute_script(
        "document.querySelector('.heat rect').dispatchEvent(new PointerEvent('pointerover', { bubbles: true }))"
    )
    assert "blk.0.attn_q.weight" in tip.text


@pytest.mark.parametrize("width", [320, 390, 768, 1200])
def test_nothing_sticks_out(page: Any, width: int) -> None:
    size = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 700}
    page.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    page.refresh()
    assert page.execute_script("return document.documentElement.scrollWidth") <= width
    page.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_dark(page: Any) -> None:
    def brightness(scheme: str) -> int:
        wanted = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
        page.execute_cdp_cmd("Emulation.setEmulatedMedia", wanted)
        colour = page.execute_script("return getComputedStyle(document.body).backgroundColor")
        return sum(int(part) for part in colour.removeprefix("rgb(").removesuffix(")").split(","))

    assert brightness("light") == 3 * 255 and brightness("dark") < 150


def test_printing(page: Any, tmp_path: Path) -> None:
    printed = page.execute_cdp_cmd("Page.printToPDF", {"preferCSSPageSize": True, "printBackground": True})
    pdf = base64.b64decode(printed["data"])
    assert pdf.startswith(b"%PDF") and len(pdf) > 20_000
    assert page.execute_script("return document.querySelectorAll('details[data-print][open]').length") == 0


def test_hostile_results_run_nothing(browser: Any, tmp_path: Path) -> None:
    show(browser, tmp_path, hostile())
    assert browser.execute_script("return window.pwned") is None
    assert browser.find_elements("css selector", "img") == []
    assert "<script>window.pwned=1</script>" in browser.find_element("css selector", ".headline").text
    heading(browser, "file").click()
    assert browser.get_log("browser") == []


OVERFLOWING = """
const scrolls = (element) => ['auto', 'scroll', 'hidden'].includes(getComputedStyle(element).overflowX);
const out = [];
for (const element of document.body.querySelectorAll('*')) {
  const box = element.getBoundingClientRect();
  if (!box.width || element.closest('svg svg, .target')) continue;
  let holder = element.parentElement;
  while (holder && holder !== document.body && !scrolls(holder) && !holder.closest('svg')) {
    if (box.right > holder.getBoundingClientRect().right + 14) { out.push(element.outerHTML.slice(0, 80)); break; }
    holder = holder.parentElement;
  }
}
return out;
"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_no_element_is_wider_than_its_container(page: Any, width: int, scheme: str) -> None:
    size = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 700}
    page.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
    page.refresh()
    assert page.execute_script(OVERFLOWING) == []
    page.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_nothing_is_wider_than_the_paper(page: Any) -> None:
    """A4 with its margins: 182 mm, and 277 mm for the main table, which is printed sideways; 96 pixels an inch."""
    for width, where in ((688, "section:not(#table)"), (1047, "#table")):
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
        page.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
        page.refresh()
        right = (
            "return Math.max(0, ...[...document.querySelectorAll(arguments[0] + ' *')]"
            ".filter((e) => !e.closest('svg svg, .target')).map((e) => e.getBoundingClientRect().right))"
        )
        assert 0 < page.execute_script(right, where) <= width, where
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})
    page.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_the_main_table_fits_a_laptop_and_the_switch_shows_every_column(page: Any) -> None:
    size = {"width": 1280, "height": 800, "deviceScaleFactor": 1, "mobile": False}
    page.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    page.refresh()
    holder = "const box = document.querySelector('#table .scroll'); return box.scrollWidth - box.clientWidth"
    shown = "return [...document.querySelectorAll('#table thead th')].filter((th) => th.offsetWidth).length"
    assert page.execute_script(holder) <= 0
    few = page.execute_script(shown)
    page.find_element("id", "every-column").click()
    assert page.execute_script(shown) > few
    page.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


@pytest.mark.parametrize("n", [3, 4])
def test_plots_fill_their_row(page: Any, n: int) -> None:
    size = {"width": 1280, "height": 800, "deviceScaleFactor": 1, "mobile": False}
    page.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    page.refresh()
    gaps = (
        "const grid = document.querySelector('#plots .grid');"
        "while (grid.children.length > arguments[0]) grid.lastElementChild.remove();"
        "return [...grid.children].map((figure) => figure.getBoundingClientRect())"
        ".map((box) => [box.top, grid.getBoundingClientRect().right - box.right])"
    )
    plots = page.execute_script(gaps, n)
    right = dict(plots)  # of the last one in each row
    assert len(plots) == n and len(right) == n - 2
    assert all(abs(gap) < 1 for gap in right.values())
    page.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_what_scrolls_sideways_has_a_shadow_at_its_edge(page: Any) -> None:
    size = {"width": 390, "height": 800, "deviceScaleFactor": 1, "mobile": True}
    page.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    page.refresh()
    table = page.find_element("css selector", "#table .scroll")
    assert page.execute_script("return arguments[0].scrollWidth - arguments[0].clientWidth", table) > 0
    # shadows that stay, and covers of the page's colour that scroll along and hide them at the ends
    assert table.value_of_css_property("background-attachment") == "local, local, scroll, scroll"
    assert table.value_of_css_property("background-image").count("linear-gradient") == 4
    page.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_links_lead_to_the_words(page: Any) -> None:
    missing = (
        "return [...document.querySelectorAll('a[href^=\"#\"]')]"
        ".filter((a) => !document.getElementById(a.hash.slice(1))).length"
    )
    assert page.execute_script(missing) == 0
    assert page.execute_script("return document.querySelectorAll('a[href^=\"#w-\"]').length") > 2
