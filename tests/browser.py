"""A real headless Chromium, and what a page did in it that it must not do."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import (
    Browser,
    ConsoleMessage,
    Dialog,
    Page,
    Request,
    expect,
    sync_playwright,
)

from tests.servers import require

PATIENCE = 30_000.0
"""Milliseconds the page has to show something: a loaded machine is slow."""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A browser. While it runs, its thread can run no event loop, so it ends with the module."""
    command = require("chromium")
    expect.set_options(timeout=PATIENCE)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=command,
            # Root may not use the sandbox, nor may containers with a small /dev/shm do without.
            args=["--no-sandbox", "--disable-dev-shm-usage"],
        )
        try:
            yield browser
        finally:
            browser.close()


@dataclass
class Watched:
    """A page, and its sins."""

    page: Page
    origin: str
    sins: list[str] = field(default_factory=list)

    def wide(self) -> int:
        """Pixels by which the page is wider than the window."""
        wide = self.page.evaluate("document.documentElement.scrollWidth - window.innerWidth")
        assert isinstance(wide, int)
        return wide


@contextmanager
def visit(
    browser: Browser, url: str, *, width: int = 1200, height: int = 1000
) -> Iterator[Watched]:
    """Open `url`; afterwards there was no console error, no dialog, and nothing came from
    elsewhere."""
    page = browser.new_page(viewport={"width": width, "height": height})
    page.set_default_timeout(PATIENCE)
    parts = urlsplit(url)
    seen = Watched(page, f"{parts.scheme}://{parts.netloc}/")
    sins = seen.sins

    def console(message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            sins.append(message.text)

    def dialog(opened: Dialog) -> None:
        sins.append(opened.message)
        opened.dismiss()

    def request(sent: Request) -> None:
        if not sent.url.startswith((seen.origin, "data:")):
            sins.append(sent.url)

    page.on("console", console)
    page.on("pageerror", lambda error: sins.append(str(error)))
    page.on("dialog", dialog)
    page.on("request", request)
    page.goto(url)
    try:
        yield seen
    finally:
        page.close()
    assert seen.sins == []
