"""The playground by keyboard, in the dark, from right to left, on a narrow screen, and to who cannot see it."""

from __future__ import annotations

import pytest
from browser import find_chromium

find_chromium()

from playground_steps import ask, choice  # noqa: E402 (needs it)
from playwright.sync_api import Page, expect  # noqa: E402 (only where it is installed)

ARABIC = "قطط وكلاب"


def test_right_to_left_query_is_laid_out_from_the_right(page: Page):
    choice(page, "Show").select_option("heat")
    ask(page, ARABIC)
    query = page.get_by_label("Query, in any language")
    assert query.evaluate("node => getComputedStyle(node).direction") == "rtl"
    boxes = [piece.bounding_box() for piece in page.locator(".pieces").first.get_by_role("button").all()]
    assert boxes[0]["x"] > boxes[1]["x"] > boxes[2]["x"]
    assert page.locator("#hits p").first.evaluate("node => getComputedStyle(node).direction") == "ltr"
    ask(page, "cats")
    boxes = [piece.bounding_box() for piece in page.locator(".pieces").first.get_by_role("button").all()]
    assert boxes[0]["x"] < boxes[1]["x"]


def tab_to(page: Page, selector: str, key: str = "Tab") -> None:
    for _ in range(40):
        if page.locator(f"{selector}:focus").count():
            return
        page.keyboard.press(key)
    raise AssertionError(f"{selector} is not reached by {key}")


def test_everything_is_done_by_keyboard(page: Page):
    expect(page.get_by_label("Query, in any language")).to_be_focused()
    page.keyboard.type("all about dogs")
    page.keyboard.press("Enter")
    expect(page.locator("#hits > li")).to_have_count(6)
    expect(page.get_by_label("Query, in any language")).to_be_focused()
    tab_to(page, "#show")
    page.keyboard.press("ArrowDown")
    expect(page.locator(".pieces").first).to_be_visible()
    tab_to(page, ".skip", "Shift+Tab")
    expect(page.get_by_role("link", name="Skip to the results")).to_be_in_viewport()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.keyboard.press("Enter")
    expect(page.locator("#results")).to_be_focused()
    # Another search would replace the hits, and with them what has the focus.
    page.wait_for_timeout(300)
    assert asked == []
    tab_to(page, ".pieces button")
    assert page.locator(".pieces button:focus").evaluate("node => getComputedStyle(node).outlineStyle") == "solid"
    expect(page.locator("mark.chosen")).not_to_have_count(0)
    page.keyboard.press("Space")
    expect(page.locator(".pieces button:focus")).to_have_attribute("aria-pressed", "true")
    tab_to(page, ".facts button")
    page.keyboard.press("Enter")
    expect(page.locator("#filters button")).to_have_count(1)
    expect(page.locator("#results")).to_be_focused()
    tab_to(page, "#filters button")
    page.keyboard.press("Enter")
    expect(page.locator("#filters button")).to_have_count(0)
    expect(page.get_by_label("Query, in any language")).to_be_focused()


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("show", ["words", "heat"])
def test_page_breaks_no_rule_of_accessibility(page: Page, theme: str, show: str):
    axe = pytest.importorskip(
        "axe_playwright_python.sync_playwright", reason="axe-playwright-python is not installed"
    )
    page.emulate_media(color_scheme=theme)
    choice(page, "Show").select_option(show)
    ask(page, "all about zebras")
    page.locator("#hits button").first.click()
    # While a search runs, and for a moment after it, old hits are pale on purpose.
    page.wait_for_function("() => getComputedStyle(document.querySelector('.hits')).opacity === '1'")
    page.wait_for_function("() => !document.getAnimations().some((one) => one.playState === 'running')")
    result = axe.Axe().run(page)
    assert result.violations_count == 0, result.generate_report()


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_hottest_piece_can_still_be_read(page: Page, theme: str):
    page.emulate_media(color_scheme=theme)
    choice(page, "Show").select_option("heat")
    ask(page, "cats")
    assert page.locator(".pieces button").first.evaluate(CONTRAST) >= 4.5


CONTRAST = """node => {
  node.style.setProperty("--heat", "1");
  const canvas = new OffscreenCanvas(1, 1).getContext("2d");
  const luminance = (color) => {
    canvas.fillStyle = color;
    canvas.fillRect(0, 0, 1, 1);
    const [r, g, b] = [...canvas.getImageData(0, 0, 1, 1).data].map((value) => value / 255)
      .map((value) => value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const { color, backgroundColor } = getComputedStyle(node);
  const [dark, light] = [luminance(color), luminance(backgroundColor)].sort((a, b) => a - b);
  return (light + 0.05) / (dark + 0.05);
}"""


def test_chosen_theme_is_kept(page: Page):
    ground = "getComputedStyle(document.body).backgroundColor"
    page.emulate_media(color_scheme="light")
    light = page.evaluate(ground)
    page.get_by_role("button", name="Theme: system").click()
    page.get_by_role("button", name="Theme: light").click()
    dark = page.evaluate(ground)
    page.reload()
    expect(page.get_by_role("button", name="Theme: dark")).to_be_visible()
    assert page.evaluate(ground) == dark != light


def test_narrow_screen_needs_no_sideways_scrolling(page: Page):
    page.set_viewport_size({"width": 320, "height": 640})
    choice(page, "Show").select_option("heat")
    ask(page, "all about zebras and moons")
    assert page.evaluate("document.documentElement.scrollWidth") <= 320
