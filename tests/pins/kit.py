"""What the tests of the web share: one cluster's Router, told by hand what probes find, and a
server of WSGI."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, make_server

from router.cluster.router import Router
from router.config.config import Config
from router.config.server import Server
from router.model import Lsn, Report, Role
from router.rules.context import RoutingContext, current_context
from router.sql.intent import Intent, Kind

SECRET = "correct horse battery staple"
READ = Intent(Kind.READ, "a SELECT")
_numbers = count(1)


class _Quiet(WSGIRequestHandler):
    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def serve_app(app: Any) -> Iterator[str]:
    """Its URL while `app` is served over HTTP, by a thread."""
    with make_server("127.0.0.1", 0, app, handler_class=_Quiet) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/"
        finally:
            server.shutdown()
            thread.join()


class Shop:
    """A cluster with one replica. `behind` and `caught_up` say what the next probes find."""

    def __init__(self, *, replicas: int = 1, name: str = "", **options: Any) -> None:
        # Routers of other tests may live on for a while: each cluster has a name of its own.
        self.name = name or f"db{next(_numbers)}.internal:5432/shop"
        hosts = [f"replica{i}" for i in range(replicas)]
        self.clock = options.pop("clock", time.monotonic)
        config = Config.build(Server("p"), hosts, name=self.name, **options)
        self.router = Router(config, clock=self.clock)
        self.lsn = 1000
        self.caught_up()

    def probe(self, replayed: int, *, timeline: int = 1) -> None:
        started = self.clock()
        primary, *replicas = self.router.snapshot.nodes
        reports = [Report(primary.name, started, Role.PRIMARY, Lsn(self.lsn), timeline, "1")]
        reports += [
            Report(node.name, started, Role.REPLICA, Lsn(replayed), timeline, "1", 0.0, True)
            for node in replicas
        ]
        self.router.observe(*reports)

    def caught_up(self, **options: Any) -> None:
        """The replicas have replayed everything."""
        self.probe(self.lsn, **options)

    def behind(self) -> None:
        """The replicas have not replayed the last write."""
        self.probe(self.lsn - 1)

    def write(self) -> None:
        """Somebody writes in the current context."""
        context = current_context()
        self.router.pinning.wrote(context, done=False)
        self.lsn += 1
        self.router.pinning.wrote(context, done=True)

    def reads_from(self, context: RoutingContext | None = None) -> str:
        """Where a read of the context goes: "primary" or "replica"."""
        decision = self.router.decide(READ, context=context)
        return "primary" if decision.on_primary else "replica"
