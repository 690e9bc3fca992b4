"""The first question over a connection: what its server is, before anything is trusted to it.

Between two probes a replica may have been promoted, or restarted with an older state than it had
when it was last probed.
"""

from collections.abc import Callable
from typing import Any

from router.connect.driver import Driver
from router.connect.probe import PROBE_SQL, ROLE_SQL, report
from router.model import Node, Report


def first_report(
    node: Node, connection: Any, driver: Driver, clock: Callable[[], float]
) -> Report | None:
    """What the server behind `connection` says of itself, None where it says nothing.

    A server that tells no WAL position is asked for its role alone.

    Args:
        node: the node whose server it is taken for.
        connection: the driver's, with no transaction open.
        driver: asks over it.
        clock: monotonic seconds.

    Raises:
        Exception: the connection is lost; as the driver says it.
    """
    for sql in (PROBE_SQL, ROLE_SQL):
        started = clock()
        try:
            row = driver.ask(connection, sql)
        except driver.errors as error:
            if driver.lost(error, connection):
                raise
            continue
        return report(node.name, started, row)
    return None
