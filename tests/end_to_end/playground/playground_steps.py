"""What is done on the playground's page by every test of it."""

from __future__ import annotations

from playwright.sync_api import Locator, Page, expect


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
