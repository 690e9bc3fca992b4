"""What the tests of every door share about a primary that lives on after another was promoted."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from router.cluster.router import Router
from router.testing import Cluster

ROWS = "SELECT count(*) FROM item"
INSERT = "INSERT INTO item (name) VALUES ('new')"
LOCK = "SELECT pg_advisory_lock(1)"
TABLE = "CREATE TABLE item (id serial PRIMARY KEY, name text)"
UNTOUCHED = {"probe_interval": 60}
"""No probe but those a test asks for."""


def promoted(cluster: Cluster, router: Router) -> None:
    """Promote a replica while the primary lives on, and have `router` fence that."""
    old = cluster.primary
    cluster.replicas[0].promote()
    snapshot = router.refresh()
    assert snapshot.primary is not None
    assert snapshot.fenced == {"primary"}
    assert snapshot.primary.port != old.port


@contextmanager
def held_up(cluster: Cluster) -> Iterator[Callable[[], None]]:
    """Commits on the primary wait for a standby that never comes, until the block ends.

    Yields:
        waits until one does, but for our own.
    """
    primary = cluster.primary
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'"
    over = threading.Event()

    def commit() -> None:
        # The setting is in force once the checkpointer has read it: commit until one waits.
        while not over.is_set():
            primary.execute("SELECT pg_logical_emit_message(true, 'test', 'any')")

    def until(count: int) -> None:
        deadline = time.monotonic() + 20
        while primary.execute(waiting) != [(count,)]:
            assert time.monotonic() < deadline
            time.sleep(0.01)

    first = threading.Thread(target=commit)
    _set(primary, "ALTER SYSTEM SET synchronous_standby_names = 'nobody'")
    try:
        first.start()
        until(1)
        yield lambda: until(2)
    finally:
        over.set()
        _set(primary, "ALTER SYSTEM RESET synchronous_standby_names")
        first.join(20)


def _set(server: Any, sql: str) -> None:
    server.execute(sql)
    server.execute("SELECT pg_reload_conf()")


def outcome(
    cluster: Cluster, router: Router, commit: Callable[[], object]
) -> BaseException | None:
    """What `commit`, run in a thread, raises when its server is fenced while it is under way."""
    raised: list[BaseException | None] = []

    def run() -> None:
        try:
            commit()
        except BaseException as error:
            raised.append(error)
        else:
            raised.append(None)

    thread = threading.Thread(target=run)
    with held_up(cluster) as one_waits:
        thread.start()
        one_waits()
        promoted(cluster, router)
    thread.join(20)
    return raised[0]
