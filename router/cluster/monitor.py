"""Starts and stops the probe loop of one Router, and speaks to it from any thread."""

import importlib
from contextlib import suppress

from router import registry, unpatched
from router.cluster.probe_loop import ProbeLoop
from router.cluster.prober import ConnectArgs
from router.cluster.router import Router
from router.connect.dns import Resolve, addresses_of
from router.model import Node


class Monitor:
    """Probes the nodes of one Router and tells it what was found; any thread. `resolve` gives the
    addresses of a host name, by default the system's. Raises ConfigError under eventlet."""

    def __init__(
        self, router: Router, connect_args: ConnectArgs, *, resolve: Resolve | None = None
    ) -> None:
        unpatched.refuse_eventlet()
        self.router: Router = router
        self.connect_args: ConnectArgs = connect_args
        self._resolve = resolve or addresses_of
        self._lock = registry.lock()
        self._probing: ProbeLoop | None = None
        # What the thread needs is loaded now: a module half loaded when the process forks stays so
        # in the child, and locked. psycopg may lack its libpq: the probes will say so.
        with suppress(ImportError):
            importlib.import_module("router.connect.probe_connection")
        router.telemetry.prepare()
        registry.renew(self)

    def start(self, timeout: float = 0.0) -> None:
        """Start the thread unless it runs; wait `timeout` seconds at most for a round."""
        with self._lock:
            probing = self._probing
            if probing is None or not probing.alive:
                probing = self._probing = ProbeLoop(self.router, self.connect_args, self._resolve)
                probing.start()
        probing.ready.wait(timeout)

    def stop(self, timeout: float = 5.0) -> None:
        """End the thread and close its connections; wait `timeout` seconds at most for a probe
        under way. `start` may be called again."""
        with self._lock:
            probing, self._probing = self._probing, None
        if probing is not None:
            probing.stop(timeout)

    def let_go(self) -> None:
        """As `stop`, without waiting or taking a lock: for finalisers, which run anywhere."""
        probing, self._probing = self._probing, None
        if probing is not None:
            probing.let_go()

    def hurry(self, node: Node | None = None) -> None:
        """Probe soon, unless the loop is awake anyway: a pin waits, or `node` failed."""
        if (probing := self._probing) is not None:
            probing.hurry(node)

    def refresh_catalog(self) -> None:
        """Read the catalog again soon: DDL was run."""
        if (probing := self._probing) is not None:
            probing.refresh_catalog()

    def doubt_catalog(self) -> None:
        """Look soon whether the catalog is still the same: DDL may have been run unseen."""
        if (probing := self._probing) is not None:
            probing.doubt_catalog()

    def round(self, timeout: float) -> bool:
        """Wait `timeout` seconds at most for a round of probes that begins after this call;
        whether it was finished in time."""
        probing = self._probing
        return probing is not None and probing.round(timeout)

    def after_fork(self) -> None:
        """In a forked child: the thread is the parent's, and so are its connections."""
        registry.leave_to_parent(self._probing)
        self._probing = None
