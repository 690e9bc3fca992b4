"""Loopback ports that stay ours while nobody listens on them."""

import contextlib
import random
import socket
from pathlib import Path

HOST = "127.0.0.1"
_RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")
# Not the global generator: a seeded test run would give every worker the same ports.
_random = random.SystemRandom()


def free_port() -> int:
    """A free port of 127.0.0.1, below the range from which the kernel takes client ports.

    Inside that range a stopped server's port can be lost to any outgoing connection, and a
    client that calls it may meet itself (TCP simultaneous open).
    """
    high = 32768
    with contextlib.suppress(OSError, ValueError, IndexError):
        high = int(_RANGE.read_text().split()[0])
    for _ in range(100):
        port = _random.randrange(10000, high) if high > 12000 else 0
        with socket.socket() as probe:
            try:
                probe.bind((HOST, port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise OSError(f"found no free port on {HOST} below {high}: end some listening processes")
