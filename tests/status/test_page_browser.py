"""The status page in a real browser: what it draws, and what it must not do."""

import itertools
import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import pytest
import uvicorn
from playwright.sync_api import Browser, expect

from router import asgi, wsgi
from router.cluster.router import Router
from router.config.config import Config
from router.config.server import Server
from router.model import Lsn, Report, Role
from router.rules.decision import Reason
from tests.browser import browser, visit
from tests.pins.kit import serve_app

__all__ = ["browser"]  # a fixture here as well

pytestmark = pytest.mark.slow  # it is about browsers, not about versions of Python

NAME = "<img src=x onerror=\"alert('name')\">" + "w" * 60
CLUSTER = "</script><script>alert('cluster')</script>"
REASON = "<b onmouseover=alert(1)>broken</b> \"'&amp; <svg/onload=alert(2)>"


@contextmanager
def serve_wsgi(router: Router) -> Iterator[str]:
    with serve_app(wsgi.mount(lambda *_: [], "/ops", wsgi.StatusPage(router))) as url:
        yield f"{url}ops"


@contextmanager
def serve_asgi(router: Router) -> Iterator[str]:
    page = asgi.mount(asgi.StatusPage(), "/ops", asgi.StatusPage(router))
    config = uvicorn.Config(page, "127.0.0.1", 0, log_level="warning", lifespan="off")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    deadline = time.monotonic() + 20
    while not server.started:
        assert time.monotonic() < deadline, "uvicorn did not start within 20 s"
        time.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}/ops/"
    finally:
        server.should_exit = True
        thread.join()


class Told:
    """A Router that is told by hand what probes found, again and again while the page is looked
    at, as a monitor would."""

    def __init__(self) -> None:
        replicas = [{"host": "r1", "name": NAME}, {"host": "r2"}]
        config = Config.build(Server("p"), replicas, name=CLUSTER, blacklist_duration=30)
        self.router = Router(config)
        self.lag = 0.0
        self.lsn = 100_000

    def probe(self) -> None:
        now = time.monotonic()
        primary, first, second = (node.name for node in self.router.snapshot.nodes)
        self.lsn += 10
        at = Lsn(self.lsn if not self.lag else 1)
        self.router.observe(
            Report(primary, now, Role.PRIMARY, Lsn(self.lsn), 1, "1"),
            Report(first, now, Role.REPLICA, Lsn(self.lsn), 1, "1", 0.0, True),
            Report(second, now, Role.REPLICA, at, 1, "1", self.lag, True),
        )


@pytest.mark.parametrize("serve", [serve_wsgi, serve_asgi])
def test_the_page_draws_a_cluster(
    browser: Browser, serve: Callable[[Router], AbstractContextManager[str]]
) -> None:
    """The page shows who is out and for how long, draws the lag, follows changes by itself, takes
    hostile names and errors for text, and has no need to scroll sideways on a phone."""
    told = Told()
    router = told.router
    with serve(router) as url:
        told.probe()
        for _ in range(7):
            next(router.telemetry.decisions["replica2", Reason.READ])
        router.health.failed(router.snapshot.node(NAME), REASON)
        with visit(browser, url, width=360) as seen:
            page = seen.page
            cards = page.locator(".node")
            expect(cards).to_have_count(3)
            victim = cards.nth(1)
            expect(victim.locator("h3")).to_have_text(NAME)
            expect(victim).to_contain_text(f"blacklisted: {REASON}")
            expect(victim).to_contain_text("0 in use, 0 idle")
            expect(victim.locator(".mark")).to_have_text(re.compile(r"out, (30|2\d)\.\d s left"))
            expect(page.locator("h2")).to_have_text(CLUSTER)
            expect(page.locator(".events")).to_contain_text("<img src=x onerror")
            expect(page.locator("tbody tr").first).to_contain_text("a read")
            expect(page.locator("#health")).to_have_text("ready")
            assert page.locator("img, b, script:not([nonce])").count() == 0
            assert seen.wide() <= 0

            told.lag = 9.0
            for _ in range(2):
                time.sleep(0.6)  # History.EVERY: a moment of its own
                told.probe()
            expect(cards.nth(2)).to_contain_text("9.0 s")
            line = page.locator(".chart path").nth(1)
            expect(line).to_have_attribute("d", re.compile(r"^M.*L.* 2\.0$"))
            expect(page.get_by_role("img")).to_have_accessible_name(re.compile(r"replica2 9\.0 s"))

            router.restore(NAME)
            expect(victim.locator(".mark")).to_have_text("up")
            for _ in range(2):
                router.observe(Report("primary", time.monotonic(), error="no route"))
            expect(page.locator("#health")).to_have_text("degraded")
            expect(page.locator("#meaning")).to_have_text("reads go, writes do not")
            gone = cards.first.locator(".mark")
            expect(gone).to_have_text("no answer")
            red = gone.evaluate("mark => getComputedStyle(mark).color")
            expect(cards.first).to_have_css("border-top-color", red)
            expect(page.locator(".events li").first).to_have_class("out")
            assert page.get_by_role("button").count() == 0
            assert seen.wide() <= 0


def test_a_page_without_an_answer_says_so(browser: Browser) -> None:
    """When the server is gone the page says that what it shows is old."""
    told = Told()
    told.probe()
    page = browser.new_page()
    with serve_wsgi(told.router) as url:
        page.goto(url)
        expect(page.locator(".node")).to_have_count(3)
    expect(page.get_by_role("alert")).to_contain_text("What is shown is old")
    page.close()


def test_one_process_of_several_is_shown_at_a_time(browser: Browser) -> None:
    """Where workers answer in turn the page stays with one of them, and the visitor may choose."""
    told = Told()
    told.probe()
    page: Any = wsgi.StatusPage(told.router)
    turns = itertools.cycle(("101", "102"))

    def workers(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        body = b"".join(page(environ, lambda status, headers: start_response(status, [])))
        if environ["PATH_INFO"] != "/status":
            return [body]
        process = next(turns)
        state = json.loads(body) | {"process": int(process)}
        state["clusters"][0]["name"] = f"as {process} sees it"
        return [json.dumps(state).encode()]

    with serve_app(workers) as url, visit(browser, url) as seen:
        title, processes = seen.page.locator("h2"), seen.page.get_by_label("Process")
        expect(processes.locator("option")).to_have_text(["101", "102"])
        expect(title).to_have_text("as 101 sees it")
        processes.select_option("102")
        expect(title).to_have_text("as 102 sees it")
        expect(processes).to_have_value("102")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_can_be_read_and_motion_turned_off(browser: Browser, scheme: Any) -> None:
    """Every text has a contrast of 4.5 at least, in light and in dark; who wants no motion gets
    none."""
    told = Told()
    told.lag = 9.0
    told.probe()
    router = told.router
    router.health.failed(router.snapshot.node(NAME), REASON)
    with serve_wsgi(router) as url, visit(browser, url) as seen:
        seen.page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
        expect(seen.page.locator(".node")).to_have_count(3)
        assert seen.page.evaluate(LOW_CONTRAST) == []
        assert seen.page.evaluate("document.getAnimations().length") == 0


LOW_CONTRAST = """() => {
  const light = (c) => c.match(/[\\d.]+/g).slice(0, 3).map((v) => v / 255)
    .map((v) => v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [.2126, .7152, .0722][i], 0);
  const ground = (e) => {
    for (; e; e = e.parentElement) {
      const c = getComputedStyle(e).backgroundColor;
      if (c !== "rgba(0, 0, 0, 0)") return c;
    }
  };
  const low = [];
  for (const e of document.querySelectorAll("body *:not(script):not(option):not(svg *)")) {
    const own = [...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim());
    if (!own || !e.checkVisibility()) continue;
    const [a, b] = [light(getComputedStyle(e).color), light(ground(e))].sort((x, y) => y - x);
    if ((a + .05) / (b + .05) < 4.5) low.push(e.outerHTML.slice(0, 100));
  }
  return low;
}"""
