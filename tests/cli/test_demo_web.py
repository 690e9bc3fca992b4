"""``pg-router demo --web`` as a visitor meets it: in a browser, pressing its buttons."""

import http.client
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from playwright.sync_api import Browser, Locator, Page, expect

from router.cli.app import app
from tests.browser import browser, visit

__all__ = ["browser"]  # a fixture here as well

SCREENSHOT = os.environ.get("PG_ROUTER_SCREENSHOT")
"""Where to put the picture that the docs show: docs/images/status-page.png."""


@dataclass
class Demo:
    """The demo, running."""

    process: "subprocess.Popen[str]"
    port: int
    root: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/"

    def post(self, **headers: str) -> int:
        """The status code of a kill that comes with `headers`."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        body = json.dumps({"node": "replica1", "action": "kill"})
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request("POST", "/act", body, {"Content-Type": "application/json"} | given)
        code = connection.getresponse().status
        connection.close()
        return code

    def interrupt(self) -> str:
        """Ctrl-C; what was printed then."""
        self.process.send_signal(signal.SIGINT)
        rest, _ = self.process.communicate(timeout=60)
        return rest


@pytest.fixture
def demo() -> Iterator[Demo]:
    environment = os.environ | {"PYTHONUNBUFFERED": "1", "NO_COLOR": "1"}
    command = [sys.executable, "-m", "router.cli", "demo", "--web", "--threads", "3"]
    # Not pytest's own directory: the servers' account cannot enter that.
    with tempfile.TemporaryDirectory() as home:
        root = Path(home)
        root.chmod(0o711)
        with subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=environment | {"TMPDIR": home},
        ) as process:
            assert process.stdout is not None
            said = ""
            for line in process.stdout:
                said += line
                if found := re.search(r"http://127\.0\.0\.1:(\d+)/", line):
                    break
            else:
                pytest.fail(said)
            try:
                yield Demo(process, int(found[1]), root)
            finally:
                try:
                    if process.poll() is None:
                        process.send_signal(signal.SIGINT)
                        process.communicate(timeout=60)
                finally:
                    process.kill()  # else the block waits for one that ignores Ctrl-C for ever


def card(page: Page, name: str) -> Locator:
    return page.locator(".node", has=page.get_by_role("heading", name=name, exact=True))


def press(page: Page, what: str, said: str) -> None:
    page.get_by_role("button", name=what, exact=True).click()
    expect(page.locator("#said")).to_contain_text(said, timeout=60_000)


@pytest.mark.slow
def test_a_visitor_does_harm_and_sees_what_comes_of_it(browser: Browser, demo: Demo) -> None:
    """The buttons kill, hold back, promote and restore real servers: the page shows the killed
    replica as out with the time left and then back, the lag, the new primary and the old one as
    a replica; no own write is missed; Ctrl-C leaves nothing."""
    with visit(browser, demo.url, height=1500) as seen:
        page = seen.page
        one, two, old = (card(page, name) for name in ("replica1", "replica2", "primary"))
        expect(two.locator(".mark")).to_have_text("up")
        for _ in range(15):
            press(page, "Kill: replica2", "replica2 was killed")
            expect(two.locator(".mark")).to_have_text(re.compile("out, |gets nothing|no answer"))
            if "out, " in (two.locator(".mark").text_content() or ""):
                break
            # On a slow machine a probe may find it dead before a statement does.
            press(page, "Restore: replica2", "started again")
            expect(two.locator(".mark")).to_have_text("up")
        expect(two.locator(".mark")).to_have_text(re.compile(r"out, \d\.\d s left"))
        expect(two).to_contain_text("blacklisted: ")
        # Not before: while pins wait for it, probes are so frequent that they find what is dead.
        press(page, "Stop replay: replica1", "replays nothing")
        if SCREENSHOT is not None:
            page.wait_for_timeout(8000)  # so that there is something to see
        expect(one).to_contain_text(re.compile(r"lag[1-9]\d*\.\d s, \d+ kB"))
        if SCREENSHOT is not None:
            page.screenshot(path=SCREENSHOT, full_page=True)
        press(page, "Restore: replica1", "replays again")
        press(page, "Restore: replica2", "started again")
        expect(two.locator(".mark")).to_have_text("up")

        press(page, "Promote: replica1", "replica1 is the primary now")
        expect(one).to_contain_text("roleprimary")
        expect(page.locator("#health")).to_have_text("ready")
        expect(page.locator(".events").first).to_contain_text("the primary is now replica1")
        press(page, "Restore: primary", "came back as a replica")
        expect(old).to_contain_text("rolereplica")
        expect(old.locator(".mark")).to_have_text("up")
        fact = page.locator("#facts div", has_text="missed an own write").locator("dd")
        expect(fact).to_have_text("0")

        page.set_viewport_size({"width": 360, "height": 800})
        assert seen.wide() <= 0
        page.mouse.wheel(0, -10_000)
        expect(page.locator("#said")).to_be_in_viewport()
    rest = demo.interrupt()
    assert demo.process.returncode == 130, rest
    assert "Traceback" not in rest
    assert not list(demo.root.glob("pg-router*"))


def test_only_its_own_page_may_press_a_button(demo: Demo) -> None:
    """Without the page's token, from another page or under another name nothing is done."""
    token = _token(demo)
    own = f"http://127.0.0.1:{demo.port}"
    assert demo.post() == 403
    assert demo.post(X_CSRF_Token="guessed") == 403
    assert demo.post(X_CSRF_Token=token, Origin="http://evil.example") == 403
    assert demo.post(X_CSRF_Token=token, Host="evil.example") == 403
    assert demo.post(X_CSRF_Token=token, X_Forwarded_For="10.0.0.1") == 403
    nodes = _status(demo)["clusters"][0]["nodes"]
    assert [node["state"] for node in nodes] == ["up", "up", "up"]
    assert demo.post(X_CSRF_Token=token, Origin=own) == 200
    deadline = time.monotonic() + 20
    while _status(demo)["clusters"][0]["nodes"][1]["state"] == "up":
        assert time.monotonic() < deadline, "the killed replica still counts as up"
        time.sleep(0.05)


def _get(demo: Demo, path: str) -> str:
    connection = http.client.HTTPConnection("127.0.0.1", demo.port, timeout=10)
    connection.request("GET", path)
    text = connection.getresponse().read().decode()
    connection.close()
    return text


def _status(demo: Demo) -> Any:
    return json.loads(_get(demo, "/status"))


def _token(demo: Demo) -> str:
    found = re.search(r'name="csrf" content="([\w-]+)"', _get(demo, "/"))
    assert found is not None
    return found[1]


@pytest.mark.slow
def test_a_demo_on_a_page_ends_by_itself() -> None:
    """With --seconds the page ends with the same verdict as the play: status 0 and no fault."""
    command = [sys.executable, "-m", "router.cli", "demo", "--web", "--seconds", "5"]
    done = subprocess.run(
        [*command, "--replicas", "1", "--threads", "2"],
        capture_output=True, text=True, timeout=150, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"[1-9]\d* requests, 0 failed; \d+ writes, 0 lost", done.stdout)
    assert "0 missed an own write" in done.stdout


def test_a_port_without_the_page_is_wrong_usage() -> None:
    """--port says nothing without --web: status 2 and a line that says so."""
    result = CliRunner().invoke(app, ["demo", "--port", "8000"])
    assert result.exit_code == 2
    assert "--port goes with --web" in result.output
