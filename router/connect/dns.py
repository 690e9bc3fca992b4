"""Host names: whether something is one, and where it leads."""

import encodings.idna  # noqa: F401 - else loaded by the first name, in a thread that looks it up
import ipaddress
import socket


def addresses_of(host: str) -> frozenset[str]:
    """Every address the system's resolver gives for `host`.

    Raises:
        OSError: it gives none, or does not answer.
    """
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
