"""Host names: whether something is one, where it leads, and how often that is asked."""

import encodings.idna  # noqa: F401 - else loaded by the first name, in a thread that looks it up
import ipaddress
import socket
from collections.abc import Callable, Collection

from router.model import Node

Resolve = Callable[[str], frozenset[str]]
"""Gives every address of a host name; may block. Raises OSError where it cannot tell."""

RESOLVE_INTERVAL = 5.0
"""Seconds between two look-ups of the nodes' host names."""


def addresses_of(host: str) -> frozenset[str]:
    """Every address the system's resolver gives for `host`; raises OSError without any."""
    found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    return frozenset(str(address[0]) for *_, address in found)


def is_name(host: str) -> bool:
    """Whether `host` is a name: no address, no directory of sockets."""
    if not host or host[0] in "/@":
        return False
    try:
        ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return True
    return False


class Addresses:
    """Where the nodes' names led when they were last looked up."""

    def __init__(self) -> None:
        self._known: dict[Node, frozenset[str]] = {}

    def keep(self, nodes: Collection[Node]) -> None:
        """Forget every node that is not among `nodes`."""
        self._known = {node: found for node, found in self._known.items() if node in nodes}

    def left(self, node: Node, found: frozenset[str]) -> frozenset[str] | None:
        """Take in that the name of `node` leads to the addresses `found` now; returns those
        before, if none is among them, else None."""
        before = self._known.setdefault(node, found)
        # A name with several addresses may show some of them at a time, in any order.
        if not found or not before.isdisjoint(found):
            return None
        self._known[node] = found
        return before
