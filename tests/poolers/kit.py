"""Pgpool-II and Odyssey on loopback ports in front of each server, ended with the test."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import NamedTuple

from router.testing import Cluster, Server
from router.testing.ports import free_port
from tests.failover.endpoint import Endpoint, Endpoints
from tests.servers import serving, unpacked

PGPOOL = """
listen_addresses = '127.0.0.1'
port = {port}
unix_socket_directories = '.'
pcp_listen_addresses = ''
pcp_socket_dir = '.'
pid_file_name = 'pgpool.pid'
work_dir = '.'
backend_clustering_mode = 'raw'
backend_hostname0 = '127.0.0.1'
backend_port0 = {server.port}
backend_flag0 = 'DISALLOW_TO_FAILOVER'
load_balance_mode = off
failover_on_backend_error = off
enable_pool_hba = off
num_init_children = {children}
max_pool = 1
"""
"""One server behind each Pgpool-II, and nothing for it to decide."""

ODYSSEY = """
daemonize no
log_to_stdout yes
log_format "%p %t %l [%i %s] (%c) %m\\n"
workers 1
listen {{
    host "127.0.0.1"
    port {port}
}}
storage "server" {{
    type "remote"
    host "{server.host}"
    port {server.port}
}}
database default {{
    user default {{
        authentication "none"
        storage "server"
        pool "{mode}"
        pool_size {size}
        pool_discard {discard}
        pool_cancel yes
        pool_rollback yes
        pool_reserve_prepared_statement {prepared}
    }}
}}
"""


class Pooler(NamedTuple):
    """Where a pooler listens."""

    host: str
    port: int


Start = Callable[[Server], AbstractContextManager[Pooler]]


@contextmanager
def in_front(cluster: Cluster, start: Start) -> Iterator[Endpoints]:
    """One pooler, by `start`, in front of each server of `cluster`."""
    with ExitStack() as stack:

        def front(server: Server) -> Endpoint:
            return Endpoint(stack.enter_context(start(server)), server)

        yield Endpoints(front(cluster.primary), [front(server) for server in cluster.replicas])


@contextmanager
def pgpool(server: Server) -> Iterator[Pooler]:
    """A Pgpool-II in front of `server`."""
    command = [unpacked("pgpool", "usr/sbin/pgpool"), "-n", "-f", "pgpool.conf", "-F", "pcp.conf"]
    port = free_port()
    conf = PGPOOL.format(port=port, server=server, children=16)
    with serving(command, {"pgpool.conf": conf, "pcp.conf": ""}, port):
        yield Pooler("127.0.0.1", port)


@contextmanager
def odyssey(
    server: Server, mode: str, *, prepared: bool = True, size: int = 8
) -> Iterator[Pooler]:
    """An Odyssey in front of `server` that pools in `mode`, over `size` connections; by default it
    keeps its clients' `prepared` statements apart, as it does where nothing is said."""
    command = [unpacked("odyssey", "usr/bin/odyssey"), "odyssey.conf"]
    port = free_port()
    conf = ODYSSEY.format(
        port=port,
        server=server,
        mode=mode,
        size=size,
        discard="yes" if mode == "session" else "no",
        prepared="yes" if prepared else "no",
    )
    with serving(command, {"odyssey.conf": conf}, port):
        yield Pooler("127.0.0.1", port)
