"""The playground in a real browser, over `drdecr serve` with a tiny student."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from browser import find_chromium, opened_page, running_browser
from service_process import COMMAND, RunningService, environment, running_service

from service.keys import new_key

CHROMIUM = find_chromium()

from playwright.sync_api import Browser, Locator, Page, Route, expect  # noqa: E402 (only where it is installed)

ARABIC = "قطط وكلاب"
# The tiny student reads 128 tokens, of which a word of letters that it does not know is one.
LONG = f"{'œ' * 14} " * 40 + "Zebras graze here. " + f"{'œ' * 14} " * 40
PASSAGES = [
    {"id": "cats", "title": "Cats", "text": "All about cats.", "metadata": {"kind": "animal", "legs": 4}},
    {
        "id": "dogs",
        "title": "Dogs",
        "text": "All about dogs.",
        "metadata": {"kind": "animal", "tags": ["loud", "dear"]},
    },
    {"id": "moons", "title": "Moons", "text": "All about moons.", "metadata": {"kind": "world"}},
    {"id": "zebras", "text": LONG, "metadata": {"kind": "animal"}},
    {"id": "markup", "title": "<b>Quux</b>", "text": "<img src=x onerror='document.title=1'> quux quux."},
    {"id": "faces", "title": "Faces", "text": "😀🐈 wombat 😀 wombat."},
]


@pytest.fixture(scope="module")
def snapshot(tiny_student: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("playground")
    passages = directory / "passages.jsonl"
    passages.write_text("".join(json.dumps(passage) + "\n" for passage in PASSAGES), encoding="utf-8")
    build = [*COMMAND, "index", "build", "--student", tiny_student, "--passages", passages]
    subprocess.run(
        [*build, "--out", directory / "snapshot"], check=True, env=environment(), stdout=subprocess.DEVNULL
    )
    return directory / "snapshot"


@pytest.fixture(scope="module")
def service(tiny_student: Path, snapshot: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningService]:
    log = tmp_path_factory.mktemp("log") / "serve.log"
    options = ("--student", tiny_student, "--index", f"demo={snapshot}")
    with running_service(log, *options, MAX_QUERY_CHARS="60") as running:
        yield running


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with running_browser(CHROMIUM) as running:
        yield running


@pytest.fixture
def page(browser: Browser, service: RunningService) -> Iterator[Page]:
    with opened_page(browser, service.url) as opened:
        opened.goto("/")
        expect(opened.locator("#status")).to_contain_text("6 passages are ready")
        yield opened


def ask(page: Page, query: str) -> None:
    page.get_by_label("Query, in any language").fill(query)
    page.keyboard.press("Enter")
    expect(page.locator("#status")).to_contain_text(f"for {query}")


def choice(page: Page, name: str) -> Locator:
    return page.get_by_role("combobox", name=name)


def hit(page: Page, name: str) -> Locator:
    return (
        page.get_by_role("list", name="Passages")
        .get_by_role("listitem")
        .filter(has=page.get_by_role("heading", name=name))
    )


def test_results_show_title_score_metadata_marks_and_stages(page: Page):
    ask(page, "all about cats")
    first = page.locator("#hits > li").first
    expect(first.get_by_role("heading")).to_have_text("Cats")
    expect(first).to_contain_text("score ")
    expect(first.get_by_role("list", name="Metadata")).to_contain_text("legs: 4")
    expect(first.locator("mark").last).to_contain_text("about")
    expect(page.locator("#status")).to_contain_text("6 passages for all about cats")
    assert {"encode", "search", "total"} <= set(page.locator("#stages dt").all_text_contents())
    expect(page).to_have_title("all about cats · DR.DECR playground")


def test_each_example_is_answered(page: Page):
    examples = page.get_by_role("region", name="Try").get_by_role("button")
    assert examples.count() == 9
    for number in range(9):
        text = examples.nth(number).locator("bdi").inner_text()
        examples.nth(number).click()
        expect(page.locator("#status")).to_contain_text(f"passages for {text}")


def test_marks_stand_where_the_service_says(page: Page, service: RunningService):
    body = {"query": "wombat", "k": 1, "highlight": True}
    (found,) = service.client.post("/v1/indexes/demo/search", json=body).json()["hits"]
    wanted = [found[span["field"]][span["start"] : span["end"]] for span in found["highlights"]]
    ask(page, "wombat")
    assert hit(page, "Faces").locator("mark").all_text_contents() == wanted
    assert "wombat" in wanted
    expect(hit(page, "Faces").locator("p")).to_have_text("😀🐈 wombat 😀 wombat.")


def test_heat_map_tells_which_piece_met_which(page: Page, service: RunningService):
    body = {"query": "cats", "k": 1, "explain": True}
    (found,) = service.client.post("/v1/indexes/demo/search", json=body).json()["hits"]
    tokens = [token for token in found["explanation"]["tokens"] if token["passage"]]
    ask(page, "cats")
    choice(page, "Show").select_option("heat")
    pieces = hit(page, found["title"]).get_by_role("list", name="Query pieces").get_by_role("button")
    expect(pieces).to_have_count(len(found["explanation"]["tokens"]))
    for token in tokens:
        met = token["passage"]["text"].strip() or "no text"
        name = f"{token['query']['text'].strip()} met {met}, {token['score']:.2f}"
        expect(hit(page, found["title"]).get_by_role("button", name=name).first).to_be_visible()
    chosen = hit(page, found["title"]).locator("mark.chosen")
    expect(chosen).to_have_count(0)
    pieces.last.click()
    page.mouse.move(0, 0)
    page.get_by_label("Query, in any language").focus()
    expect(chosen).to_have_text(tokens[-1]["passage"]["text"])
    expect(pieces.last).to_have_attribute("aria-pressed", "true")


def test_long_passage_is_shown_where_it_matches_and_whole_on_request(page: Page):
    ask(page, "zebras graze")
    found = hit(page, "zebras")
    expect(found.locator("mark", has_text="Zebras")).to_be_visible()
    assert len(found.locator("p").inner_text()) < 400
    found.get_by_role("button", name="Show all").click()
    expect(found.locator("p")).to_have_text(LONG.strip())
    expect(found.get_by_role("button", name="Show less")).to_have_attribute("aria-expanded", "true")
    found.get_by_role("button", name="Show less").click()
    assert len(found.locator("p").inner_text()) < 400


def test_passage_with_markup_is_text(page: Page):
    ask(page, "quux")
    found = hit(page, "<b>Quux</b>")
    expect(found.locator("p")).to_have_text("<img src=x onerror='document.title=1'> quux quux.")
    assert page.locator("#hits img, #hits b").count() == 0


def test_metadata_narrows_the_search_and_the_filter_can_be_removed(page: Page):
    ask(page, "all about")
    hit(page, "Dogs").get_by_role("button", name="tags: loud").click()
    expect(page.locator("#hits > li")).to_have_count(1)
    expect(page.locator("#hits h3")).to_have_text("Dogs")
    page.get_by_role("button", name="Remove the filter tags: loud").click()
    expect(page.locator("#hits > li")).to_have_count(6)


def test_empty_result_says_so_and_offers_a_way_out(page: Page):
    page.goto("/?q=cats&filter=" + json.dumps([{"field": "kind", "eq": "mineral"}]))
    expect(page.locator("#status")).to_contain_text("Nothing found for cats")
    expect(page.locator("#hits > li")).to_have_count(0)
    page.get_by_role("button", name="Search without filters").click()
    expect(page.locator("#hits > li")).to_have_count(6)
    expect(page.locator("#nothing")).to_be_empty()
    assert "filter" not in page.url


def test_link_gives_the_same_search_and_back_the_one_before(page: Page, browser: Browser, service: RunningService):
    ask(page, "all about cats")
    choice(page, "At most").select_option("5")
    expect(page.locator("#hits > li")).to_have_count(5)
    choice(page, "Effort").select_option("thorough")
    choice(page, "Show").select_option("heat")
    expect(page.locator(".pieces").first).to_be_visible()
    link = page.url
    with opened_page(browser, service.url) as other:
        other.goto(link)
        expect(other.locator(".pieces")).to_have_count(5)
        expect(other.get_by_label("Query, in any language")).to_have_value("all about cats")
        expect(choice(other, "Effort")).to_have_value("thorough")
    ask(page, "moons")
    page.go_back()
    expect(page.locator("#status")).to_contain_text("for all about cats")


def test_back_to_the_beginning_shows_no_search(page: Page):
    ask(page, "cats")
    page.get_by_role("button", name="Copy link").wait_for()
    page.go_back()
    expect(page.get_by_label("Query, in any language")).to_have_value("")
    expect(page.locator("#hits > li")).to_have_count(0)
    expect(page.get_by_role("button", name="Copy link")).to_be_hidden()
    expect(page).not_to_have_title(re.compile("cats"))
    page.go_forward()
    expect(page.locator("#status")).to_contain_text("for cats")


@pytest.mark.parametrize(
    ("missing", "told"), [(["2of2"], "no answer came from 2of2"), ([], "not every passage shows why it was found")]
)
def test_answer_that_is_not_complete_says_so(page: Page, missing: list[str], told: str):
    def incomplete(route: Route) -> None:
        answer = route.fetch()
        route.fulfill(response=answer, json={**answer.json(), "partial": True, "missing_shards": missing})

    page.route("**/search", incomplete)
    ask(page, "cats")
    expect(page.locator("#status")).to_contain_text(told)


def test_copy_link_copies_the_address(page: Page):
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    expect(page.get_by_role("button", name="Copy link")).to_be_hidden()
    ask(page, "cats & dogs = 50%?")
    page.get_by_role("button", name="Copy link").click()
    expect(page.get_by_role("button", name="Link copied")).to_be_visible()
    copied = page.evaluate("navigator.clipboard.readText()")
    assert copied == page.url
    page.goto(copied)
    expect(page.locator("#status")).to_contain_text("for cats & dogs = 50%?")


def test_refused_query_is_told_in_words_with_the_request_id_of_the_log(page: Page, service: RunningService):
    ask(page, "cats")
    page.get_by_label("Query, in any language").fill("c" * 61)
    page.keyboard.press("Enter")
    problem = page.get_by_role("alert")
    expect(problem).to_contain_text("This cannot be searched")
    expect(problem).to_contain_text("has 61 characters; the limit is 60")
    request_id = problem.locator("code").inner_text()
    (entry,) = (entry for entry in service.entries() if entry.get("request_id") == request_id)
    assert entry["status"] == 422
    expect(page.locator("#hits > li")).to_have_count(0)
    ask(page, "cats")
    expect(problem).to_be_empty()


def test_link_to_an_unknown_index_names_those_there_are(page: Page):
    page.goto("/?q=cats&index=absent")
    expect(page.get_by_role("alert")).to_contain_text("There is no such index")
    expect(page.get_by_role("alert")).to_contain_text("demo")
    choice(page, "Index").select_option("demo")
    expect(page.locator("#hits > li")).to_have_count(6)


@pytest.mark.parametrize("filter_text", ["{", "[null]", '{"a": 1}'])
def test_unreadable_filter_in_a_link_is_told(page: Page, filter_text: str):
    page.goto(f"/?q=cats&filter={filter_text}")
    expect(page.get_by_role("alert")).to_contain_text("The filter in this address cannot be read")


def test_service_that_went_away_is_told_and_asked_again(page: Page):
    page.route("**/search", lambda route: route.abort())
    page.get_by_label("Query, in any language").fill("cats")
    page.keyboard.press("Enter")
    expect(page.get_by_role("alert")).to_contain_text("The service cannot be reached")
    page.unroute("**/search")
    page.get_by_role("button", name="Try again").click()
    expect(page.locator("#hits > li")).to_have_count(6)
    assert "q=cats" in page.url


def test_error_of_a_proxy_that_is_no_json_is_told(page: Page):
    answer = {"status": 503, "body": "<html>no", "headers": {"Retry-After": "7", "X-Request-ID": "from-the-proxy"}}
    page.route("**/search", lambda route: route.fulfill(**answer))
    page.get_by_label("Query, in any language").fill("cats")
    page.keyboard.press("Enter")
    for part in ("The service is not ready", "Try again in 7 s", "from-the-proxy"):
        expect(page.get_by_role("alert")).to_contain_text(part)


def test_key_is_asked_for_and_then_used(browser: Browser, tiny_student: Path, snapshot: Path, tmp_path: Path):
    key, stored = new_key()
    options = ("--student", tiny_student, "--index", f"demo={snapshot}")
    with (
        running_service(tmp_path / "log", *options, API_KEY_HASHES=str(stored)) as guarded,
        opened_page(browser, guarded.url) as page,
    ):
        page.goto("/?q=cats")
        expect(page.get_by_role("alert")).to_contain_text("An API key is needed")
        expect(page.get_by_label("API key")).to_be_focused()
        page.keyboard.type(key)
        page.keyboard.press("Enter")
        expect(page.locator("#hits > li")).to_have_count(6)
        assert key not in page.url


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
