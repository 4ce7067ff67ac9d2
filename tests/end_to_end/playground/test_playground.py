"""What the playground answers, remembers in its address, and says when something is wrong."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from browser import find_chromium, opened_page
from data_lab import publish
from playground_passages import LONG
from service_process import RunningService, running_service

from drdecr.collections.directory import DataDirectory
from drdecr.encoder.load import load_encoder
from service.keys import new_key

find_chromium()

from playground_steps import ask, choice, hit  # noqa: E402 (needs it)
from playwright.sync_api import Browser, Page, Route, expect  # noqa: E402 (only where it is installed)


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


def test_menu_offers_what_is_built_and_its_aliases(browser: Browser, tiny_student: Path, tmp_path: Path):
    directory = DataDirectory(tmp_path / "data")
    directory.create_index("later")
    options = ("--student", tiny_student, "--data", directory.root)
    with (
        running_service(tmp_path / "log", *options, FOLLOW_S="0.05") as service,
        opened_page(browser, service.url) as page,
    ):
        page.goto("/")
        expect(page.locator("#status")).to_have_text("No index is built yet.")
        page.get_by_label("Query, in any language").fill("cats")
        page.keyboard.press("Enter")
        expect(page.get_by_role("alert")).to_contain_text("No index is built yet. Build one, then search again.")
        directory.create_index("docs")
        texts = {f"p{i}": f"all about cats, part {i}" for i in range(3)}
        publish(directory, "docs", load_encoder(tiny_student, threads=1), texts, tmp_path / "scratch")
        assert service.client.put("/v1/aliases/live", json={"index": "docs", "number": 1}).status_code == 200
        page.keyboard.press("Enter")
        expect(page.locator("#hits > li")).to_have_count(3)
        assert choice(page, "Index").locator("option").all_text_contents() == ["docs (3)", "live (alias of docs)"]
        choice(page, "Index").select_option("live")
        expect(page).to_have_url(re.compile("index=live"))
        expect(page.locator("#hits > li")).to_have_count(3)


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
