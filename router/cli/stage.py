"""``pg-router demo --web``: the status page over the demo's cluster, with buttons to do harm."""

import contextlib
import hmac
import json
import queue
import secrets
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from socketserver import ThreadingMixIn
from typing import TYPE_CHECKING, Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import click

from router.cli.workload import Users
from router.cluster.router import Router
from router.status.page import Page
from router.testing import Cluster, Server, ServerFailed
from router.wsgi import respond

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse

HOST = "127.0.0.1"

LABELS = {"kill": "Kill", "lag": "Stop replay", "promote": "Promote", "restore": "Restore"}

MAX_BODY = 1000
"""Bytes of the largest request a button makes."""

PATIENCE = 90.0
"""Seconds a button waits for what it has started."""

INTRO = (
    "A real PostgreSQL primary with real streaming replicas, started for you just now. {} users "
    "use them through the router: writes go to the primary, reads to the replicas, and who has "
    "just written reads from the primary until a replica has it. Kill a server, stop a replica's "
    "replay, promote another one, and watch where statements go."
)


@dataclass(slots=True)
class Pressed:
    """A button that was pressed."""

    server: str
    action: str
    done: threading.Event = field(default_factory=threading.Event)
    said: str = ""


class Stage:
    """The actions on the cluster. One thread does them all, the one in `play`, which Ctrl-C
    interrupts like everything else of the demo.

    Attributes:
        crashed: whether the primary was killed.
    """

    def __init__(self, cluster: Cluster, router: Router, users: Users) -> None:
        self.cluster = cluster
        self.router = router
        self.users = users
        self.crashed: bool = False
        self._lagging: set[str] = set()
        self._busy = ""
        self._queue: queue.Queue[Pressed] = queue.Queue()

    def play(self, seconds: float | None) -> None:
        """Do what the buttons say, for so many `seconds`, or for ever."""
        end = None if seconds is None else time.monotonic() + seconds
        while end is None or time.monotonic() < end:
            with contextlib.suppress(queue.Empty):
                self._do(self._queue.get(timeout=0.1))

    def press(self, server: str, action: str) -> str:
        """Have `action` done to `server`, wait, and say how it ended. Safe in any thread."""
        if action not in dict(self.buttons().get(server, ())):
            return f"{action} {server}: not possible now"
        pressed = Pressed(server, action)
        self._queue.put(pressed)
        pressed.done.wait(PATIENCE)
        return pressed.said or f"{action} {server}: it has not ended yet"

    def buttons(self) -> dict[str, list[tuple[str, str]]]:
        """By node name: the actions that it allows now, each with its label."""
        return {
            server.name: [(action, LABELS[action]) for action in self._possible(server)]
            for server in self.cluster.servers
        }

    def _possible(self, server: Server) -> list[str]:
        if not server.running:
            return ["restore"]
        if server is self.cluster.primary:
            return ["kill"]
        return ["kill", "restore" if server.name in self._lagging else "lag", "promote"]

    def shown(self) -> dict[str, Any]:
        """The `extra` of the `Page`: what it shows beside the cluster."""
        ledger = self.users.ledger
        return {
            "intro": INTRO.format(self.users.count),
            "facts": [
                ("requests", f"{ledger.total:,}"),
                ("failed", f"{len(ledger.failures):,}"),
                ("missed an own write", f"{len(ledger.stale):,}"),
                ("pinned now", f"{self.users.pinned:,}"),
                ("typical time", f"{ledger.quantile(0.5) * 1000:.1f} ms"),
                ("slowest of a hundred", f"{ledger.quantile(0.99) * 1000:.0f} ms"),
            ],
            "busy": self._busy,
            "buttons": self.buttons(),
        }

    def _do(self, pressed: Pressed) -> None:
        server = next(s for s in self.cluster.servers if s.name == pressed.server)
        actions: dict[str, Callable[[Server], str]] = {
            "kill": self._kill,
            "lag": self._lag,
            "promote": self._promote,
            "restore": self._restore,
        }
        self._busy = f"{LABELS[pressed.action]}: {server.name} …"
        try:
            if pressed.action in self._possible(server):
                pressed.said = actions[pressed.action](server)
            else:  # two visitors pressed at once
                pressed.said = f"{server.name}: that has been done already"
        except (ServerFailed, TimeoutError, RuntimeError) as error:
            pressed.said = f"{server.name}: {' '.join(str(error).split())}"
        finally:
            self._busy = ""
            pressed.done.set()

    def _kill(self, server: Server) -> str:
        if server is self.cluster.primary:
            self.crashed = True
        server.kill()
        self._lagging.discard(server.name)
        return f"{server.name} was killed"

    def _lag(self, server: Server) -> str:
        server.pause_replay()
        self._lagging.add(server.name)
        return f"{server.name} receives everything and replays nothing"

    def _promote(self, server: Server) -> str:
        old = self.cluster.primary
        running = [replica for replica in self.cluster.replicas if replica.running]
        for replica in running:
            replica.resume_replay()  # who stands still follows nobody
        self._lagging.clear()
        if old.running:
            # A clean shutdown hands every commit to the replicas before the server is gone.
            old.stop()
        server.promote()
        for replica in running:
            if replica is not server:
                self._follow(replica)
        return f"{server.name} is the primary now, {old.name} is stopped"

    def _restore(self, server: Server) -> str:
        if server.running:
            server.resume_replay()
            self._lagging.discard(server.name)
            return f"{server.name} replays again"
        primary = self.cluster.primary
        if server is primary:
            server.start()
            return f"{server.name} was started again"
        if not primary.running:
            return (
                f"{server.name}: there is no primary to follow: restore {primary.name} first, or "
                "promote a replica"
            )
        if server in self.cluster.replicas:
            server.start()
            self._follow(server)
            return f"{server.name} was started again"
        self.cluster.rejoin(server)
        return f"{server.name} came back as a replica"

    def _follow(self, replica: Server) -> None:
        try:
            self.cluster.repoint(replica)
        except (ServerFailed, TimeoutError):
            self.cluster.rejoin(replica)  # it has something the new primary never got


class _Site:
    """The WSGI application: the page, and ``/act`` for its buttons."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._csrf = secrets.token_urlsafe()
        self._page = Page(lambda: {"demo": stage.router}, csrf=self._csrf, extra=stage.shown)
        self._page.routers()

    def __call__(
        self, environ: dict[str, Any], start_response: "StartResponse"
    ) -> Iterable[bytes]:
        path, code, said = environ.get("PATH_INFO", ""), "403 Forbidden", ""
        # The page's own answer to a POST is a refusal, of a stranger before anything else.
        answer = respond(self._page, environ, path)
        if path != "/act" or environ["REQUEST_METHOD"] != "POST" or answer.code != 405:
            start_response(answer.status, answer.headers)
            return [answer.body]
        if self._meant(environ):
            code, said = self._act(environ)
        body = json.dumps({"said": said or "refused: reload the page"}).encode()
        length = ("Content-Length", str(len(body)))
        start_response(code, [("Content-Type", "application/json"), length])
        return [body]

    def _meant(self, environ: dict[str, Any]) -> bool:
        """Whether a button of our own page was pressed, not one of somebody else's page."""
        given = environ.get("HTTP_X_CSRF_TOKEN", "").encode("latin-1")
        own = f"http://{environ.get('HTTP_HOST', '')}"
        known = environ.get("HTTP_ORIGIN", own) == own
        return hmac.compare_digest(given, self._csrf.encode()) and known

    def _act(self, environ: dict[str, Any]) -> tuple[str, str]:
        try:
            length = int(environ.get("CONTENT_LENGTH") or 0)
            if not 0 < length <= MAX_BODY:
                return "413 Content Too Large", "refused: too long, or empty"
            asked = json.loads(environ["wsgi.input"].read(length))
            node, action = str(asked["node"]), str(asked["action"])
        except (ValueError, KeyError, TypeError):
            return "400 Bad Request", "refused: no button sends that"
        return "200 OK", self._stage.press(node, action)


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True
    block_on_close = False  # who waits for a button's answer does not hold up the end

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of an OSError: a browser opens connections and leaves them."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)


class _Handler(WSGIRequestHandler):
    timeout = 10.0

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - its name there
        """Say nothing of each request."""


@contextlib.contextmanager
def serving(stage: Stage, port: int) -> Iterator[str]:
    """Serve the page of `stage` on 127.0.0.1 within the block, and give its URL; `port` 0 takes a
    free one.

    Raises:
        click.UsageError: the port is taken.
    """
    try:
        server = make_server(HOST, port, _Site(stage), _Server, _Handler)
    except OSError as error:
        raise click.UsageError(
            f"--port: {port} cannot be used ({error.strerror}): name another one"
        ) from None
    with server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield f"http://{HOST}:{server.server_port}/"
        finally:
            server.shutdown()
            thread.join()
