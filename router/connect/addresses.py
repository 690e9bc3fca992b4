"""Where libpq is to connect to, looked up before: its own look-up would hold up the monitor."""

import os
import socket
from typing import Any

import psycopg

from router.connect.dns import is_name
from router.polling import Loop


async def resolved(loop: Loop, params: dict[str, Any], seconds: float) -> dict[str, Any]:
    """`params` of a connection, with the addresses of each host name in them; libpq keeps the
    names for what it verifies, and finds a password by. Raises psycopg.OperationalError when none
    is found within `seconds` for each name."""
    hosts = str(params.get("host") or os.environ.get("PGHOST", "")).split(",")
    if params.get("hostaddr") or "PGHOSTADDR" in os.environ or not any(map(is_name, hosts)):
        return params
    ports = str(params.get("port") or os.environ.get("PGPORT", "")).split(",")
    if len(ports) not in (1, len(hosts)):
        return params  # libpq has the words for it
    found: list[tuple[str, str, str]] = []
    failed: psycopg.OperationalError | None = None
    for host, port in zip(hosts, ports * (len(hosts) if len(ports) == 1 else 1), strict=True):
        if not is_name(host):
            # A directory of sockets has no address; libpq takes what stands there as one of its.
            found.append((host, "" if host[:1] in ("", "/", "@") else host, port))
            continue
        try:
            addresses = await _look_up(loop, host, seconds)
        except (OSError, UnicodeError) as error:
            failed = psycopg.OperationalError(f"failed to resolve host {host!r}: {error}")
        else:
            found.extend((host, address, port) for address in addresses)
    if not found:
        assert failed is not None
        raise failed
    hosts, hostaddrs, ports = map(list, zip(*found, strict=True))
    return {**params, "host": ",".join(hosts), "hostaddr": ",".join(hostaddrs), **(
        {"port": ",".join(ports)} if any(ports) else {})}  # fmt: skip


async def _look_up(loop: Loop, host: str, seconds: float) -> list[str]:
    """The addresses of `host`, in the system's order."""

    def ask() -> list[str]:
        found = socket.getaddrinfo(host, None, proto=socket.IPPROTO_TCP, type=socket.SOCK_STREAM)
        return [str(address[0]) for *_, address in found]

    asking = loop.spawn(loop.beside(ask, "pg-router look-up"))
    try:
        if not await loop.ends(asking, within=seconds):
            raise psycopg.errors.ConnectionTimeout("connection timeout expired")
        return asking.result()
    finally:
        asking.cancel()
