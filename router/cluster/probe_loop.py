"""The probe loop: one thread's life, with short-timeout connections of its own.

At rest it asks every node once per ``probe_interval``. While a pin waits it asks more often, the
more so the younger the write is, for all waiting pins together. All nodes are asked at once, on
one event loop inside the thread, so a black hole delays nobody else's report.

Under gevent the thread is a real one. Whatever touches the application, as its locks, logs and
callbacks do, is done by ``loop.outside``, which has a greenlet do it there.
"""

import contextlib
import functools
from collections.abc import Callable, Iterable, Mapping

from router.cluster.catalog_reader import CatalogReader
from router.cluster.prober import ConnectArgs, Prober
from router.cluster.router import Router
from router.connect import dns
from router.connect.dns import Addresses, Resolve, is_name
from router.messages import masked, one_line
from router.model import Node
from router.polling import Cancelled, Task
from router.runtime import Condition, Event, Thread

JITTER = 0.1
"""Part of a pause at rest that is random, so that many processes do not probe in step."""


class ProbeLoop:
    """One thread that probes a Router's nodes until it is stopped; it is never started again.

    It shares nothing with the thread before or after it: a monitor may be started while the thread
    it had before is still ending. `resolve` gives the addresses of a host name.
    """

    def __init__(self, router: Router, connect_args: ConnectArgs, resolve: Resolve) -> None:
        self.router: Router = router
        self.ready: Event = router.runtime.event()
        self._connect_args = connect_args
        self._resolve = resolve
        self._thread: Thread | None = None
        # Held while the thread is at work, and not while it waits: a fork finds it at rest.
        self._working = router.runtime.lock(real=True)
        self._loop = router.runtime.loop(self._working)
        self._task: Task[None] | None = None
        self._wake = self._loop.event()
        self._stopping = False
        self._leaving = False
        self._probers: dict[Node, Prober] = {}
        self._probing: dict[Node, Task[None]] = {}
        self._beside: dict[str, Task[None]] = {}  # by name; no probe waits for them
        self._callers = 0
        self._resting = False
        self._rounds = 0
        self._round_done: Condition = router.runtime.condition()
        self._addresses = Addresses()
        self._catalog = CatalogReader(router, self._loop, connect_args)
        self._lookup_due = float("-inf")
        self._discovery_due = float("-inf")
        self._discovery_failed = False

    # -- called from any thread ----------------------------------------------------------------

    @property
    def alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread is not None and self._thread.is_alive()

    def start(self) -> None:
        """Start the thread."""
        name = f"pg-router monitor {self.router.cluster}"
        self._thread = self.router.runtime.spawn_real(self._run, name)

    def stop(self, timeout: float) -> None:
        """End the thread and close its connections; wait `timeout` seconds at most for that."""
        self.let_go()
        thread = self._thread
        if thread is not None and thread is not self.router.runtime.current():
            thread.join(timeout)

    def let_go(self) -> None:
        """End the thread and close its connections, without waiting for that."""
        self._stopping = True
        self._call(self._leave)

    def hurry(self, node: Node | None = None) -> None:
        """Probe soon: a pin began to wait, or `node` failed."""
        if self._resting or node is not None:
            self._resting = False
            self._call(self._wake.set)

    def refresh_catalog(self) -> None:
        """Read the catalog again soon."""
        self._catalog.due_now()
        self.hurry()

    def doubt_catalog(self) -> None:
        """Look soon whether the catalog is still the same."""
        self._catalog.doubt()
        self.hurry()

    def round(self, timeout: float) -> bool:
        """As `Monitor.round`."""
        with self._round_done:
            # The round under way may have asked some node already; the one after it has not.
            wanted = self._rounds + 2
            self._callers += 1
            try:
                self._call(self._wake.set)
                while self._rounds < wanted:
                    if self._stopping or not self._round_done.wait(timeout):
                        return False
                    self._call(self._wake.set)
            finally:
                self._callers -= 1
        return True

    def _call(self, do: Callable[[], object]) -> None:
        self._loop.call_soon_threadsafe(do)

    # -- the thread ----------------------------------------------------------------------------

    def _run(self) -> None:
        with self._working, contextlib.suppress(Cancelled):
            self._loop.run(self._probe_until_stopped())
        self._loop.outside_soon(self._tell_the_end)

    def _tell_the_end(self) -> None:
        with self._round_done:
            self._stopping = True
            self._round_done.notify_all()

    def _leave(self) -> None:
        # Once: a second cancellation would end the clearing up.
        if self._task is not None and not self._leaving:
            self._leaving = True
            self._task.cancel()

    async def _probe_until_stopped(self) -> None:
        loop = self._loop
        self._task = loop.current
        try:
            while not self._stopping:
                began = loop.time()
                try:
                    self._look_up()
                    await self._discover()
                    await self._probe_all()
                    await self._read_catalog()
                except Exception as error:  # noqa: BLE001 - the loop must outlive any round
                    told = masked(f"{error!r}")
                    await loop.outside(functools.partial(self._say, told))
                await loop.outside(self._round_is_over)
                pause = self._pause()
                self._resting = pause >= self.router.config.probe_interval * (1 - JITTER)
                await self._wake.wait(within=pause)
                # A process that writes all the time wakes us all the time: one round for many.
                early = began + self.router.config.pin_probe_interval - loop.time()
                if early > 0 and not self._callers:
                    await loop.sleep(early)
                self._wake.clear()
        finally:
            self._leaving = True
            for task in (*self._probing.values(), *self._beside.values()):
                task.cancel()
            for prober in self._probers.values():
                prober.drop()

    def _say(self, error: str) -> None:
        self.router.telemetry.event("monitor_error", level="error", error=error)

    def _round_is_over(self) -> None:
        # A replica that has replayed nothing yet is judged by two looks at the primary.
        if self._rounds or not self.router.snapshot.unjudged():
            self.ready.set()
        self.router.telemetry.prepare()
        with self._round_done:
            self._rounds += 1
            self._round_done.notify_all()

    def _pause(self) -> float:
        """Seconds until the next round: short while a write waits for a replica."""
        router, config = self.router, self.router.config
        rest = config.probe_interval * (1 - JITTER * router.runtime.rand())
        if not self._busy("catalog"):
            rest = min(rest, max(config.pin_probe_interval, self._catalog.rest))
        snapshot, last = router.snapshot, router.last_write
        if self._rounds == 1 and snapshot.unjudged():
            return min(rest, config.pin_probe_interval)
        back = [floor.after for floor in snapshot.joining.values() if floor.after is not None]
        if back:
            # It serves reads as soon as it is seen to have caught up.
            rest = min(rest, self._soon(max(back)))
        if last == float("-inf") or router.policy.consistency != "lsn":
            return rest
        lsn = snapshot.bound(last)
        waiting = lsn is None or any(
            (at := snapshot.replayed(n.name)) is not None and at < lsn for n in snapshot.replicas
        )
        if not waiting:
            return rest
        return min(rest, self._soon(last))

    def _soon(self, since: float) -> float:
        """Seconds until the next round, where it has been waited for from `since` on (monotonic
        seconds).

        The longer, the less a moment matters: a tenth of that time bounds what probing adds, and a
        replica that stands still is not asked fifty times a second.
        """
        return max(self.router.config.pin_probe_interval, (self.router.clock() - since) / 10)

    def _busy(self, name: str) -> bool:
        task = self._beside.get(name)
        return task is not None and not task.done

    def _look_up(self) -> None:
        """Look up the nodes' names when it is time; no probe waits for a name server."""
        now = self.router.clock()
        if now < self._lookup_due or self._busy("lookup"):
            return
        self._lookup_due = now + dns.RESOLVE_INTERVAL
        nodes = [node for node in self.router.snapshot.nodes if is_name(node.host)]
        if nodes:
            self._beside["lookup"] = self._loop.spawn(self._compare_addresses(nodes))

    async def _compare_addresses(self, nodes: list[Node]) -> None:
        self._addresses.keep(nodes)
        for node in nodes:
            try:
                resolve = functools.partial(self._resolve, node.host)
                found = await self._loop.beside(resolve, "pg-router look-up")
            except (OSError, UnicodeError):
                continue  # a name server that does not answer moves no server
            before = self._addresses.left(node, found)
            if before is not None:
                self._drop(node)
                moved = functools.partial(self.router.membership.moved, node, before, found)
                await self._loop.outside(moved)

    async def _discover(self) -> None:
        """Ask who belongs to the cluster when it is time; only the first round waits for it."""
        now, config = self.router.clock(), self.router.config
        if config.discovery is None or self._busy("discovery") or now < self._discovery_due:
            return
        self._discovery_due = now + config.discovery_interval
        asking = self._loop.spawn(self._ask_members(config.discovery))
        self._beside["discovery"] = asking
        if not self._rounds:
            await self._loop.ends(asking, within=config.start_timeout / 2)

    async def _ask_members(self, ask: Callable[[], Iterable[str | Mapping[str, object]]]) -> None:
        try:
            members = await self._loop.beside(ask, "pg-router discovery")
            await self._loop.outside(lambda: self.router.membership.members(members))
        except Exception as error:  # noqa: BLE001 - the user's own; the nodes stay as they are
            told = one_line(error)
            await self._loop.outside(lambda: self._undiscovered(told))
        else:
            self._discovery_failed = False

    def _undiscovered(self, reason: str) -> None:
        if not self._discovery_failed:
            self._discovery_failed = True
            self.router.telemetry.event(
                "discovery_failed",
                level="warning",
                reason=reason,
                advice="the servers stay as they are until it succeeds again",
            )

    async def _probe_all(self) -> None:
        nodes = self.router.snapshot.nodes
        for node in self._probers.keys() - set(nodes):
            self._drop(node)
        probing = self._probing
        for node in [node for node, task in probing.items() if task.done]:
            probing.pop(node).result()
        for node in nodes:
            if node not in probing:
                probing[node] = self._loop.spawn(self._probe(node))
        # A node that did not answer last time may take its whole time-out again: that must not
        # hold up the rounds a pin waits for. Who asked for a round gets every node's answer.
        failing = {n for n, r in self.router.snapshot.reports.items() if r.failures or r.obstacle}
        awaited = [n for n in probing if self._callers or n.name not in failing]
        for node in awaited:
            await self._loop.ends(probing[node])
            probing.pop(node).result()

    async def _probe(self, node: Node) -> None:
        """Ask one node and tell the Router at once, without waiting for slower nodes."""
        prober = self._probers.get(node)
        if prober is None:
            arguments = functools.partial(self._connect_args, node)
            prober = self._probers[node] = Prober(self.router, self._loop, node, arguments)
        found = await prober.probe()
        if found is None:
            return
        await self._loop.outside(lambda: self.router.observe(found))
        if node is self.router.snapshot.primary and not found.error:
            await self._catalog.stamp(prober, found)

    def _drop(self, node: Node) -> None:
        if (prober := self._probers.pop(node, None)) is not None:
            prober.drop()

    async def _read_catalog(self) -> None:
        reached = {n for n, prober in self._probers.items() if prober.connection is not None}
        reading = None if self._busy("catalog") else self._catalog.begin(reached)
        if reading is not None:
            self._beside["catalog"] = reading
            # A reading takes milliseconds as a rule: whoever waits for this round has it too.
            await self._loop.ends(reading, within=self.router.config.probe_timeout)
