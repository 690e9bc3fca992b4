"""Pgpool-II and PgBouncer before a cluster, on loopback, with the settings their authors ship."""

import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from router.testing import Cluster, programs
from router.testing.ports import free_port

SEARCH = "/usr/local/sbin:/usr/sbin:/sbin:/usr/local/bin:/usr/bin:/bin"
STARTUP = 15.0  # seconds
CLIENTS = 40


@contextmanager
def pgbouncer(cluster: Cluster) -> Iterator[str | None]:
    """A PgBouncer that pools by transaction, before the primary: its URL, or None without it."""
    port = free_port()
    primary = cluster.primary
    ini = f"""
        [databases]
        postgres = host={primary.host} port={primary.port} dbname=postgres
        [pgbouncer]
        listen_addr = 127.0.0.1
        listen_port = {port}
        unix_socket_dir =
        auth_type = trust
        auth_file = users.txt
        pool_mode = transaction
        default_pool_size = {CLIENTS}
        max_client_conn = 500
        """
    files = {"pgbouncer.ini": _dedent(ini), "users.txt": '"postgres" ""\n'}
    with _running("pgbouncer", ["pgbouncer.ini"], files, port) as there:
        yield f"postgresql+psycopg://postgres@127.0.0.1:{port}/postgres" if there else None


@contextmanager
def pgpool(cluster: Cluster) -> Iterator[str | None]:
    """A Pgpool-II that balances reads over the replicas: its URL, or None without it."""
    port = free_port()
    backends = "".join(
        f"""
        backend_hostname{number} = '{server.host}'
        backend_port{number} = {server.port}
        backend_weight{number} = {0 if server is cluster.primary else 1}
        backend_flag{number} = 'DISALLOW_TO_FAILOVER'"""
        for number, server in enumerate(cluster.servers)
    )
    conf = f"""
        backend_clustering_mode = 'streaming_replication'
        listen_addresses = '127.0.0.1'
        port = {port}
        socket_dir = '.'
        pcp_socket_dir = '.'
        pcp_listen_addresses = ''
        pcp_port = {free_port()}
        wd_ipc_socket_dir = '.'
        pid_file_name = 'pgpool.pid'
        work_dir = '.'
        logdir = '.'
        num_init_children = {CLIENTS}
        max_pool = 1
        load_balance_mode = on
        sr_check_user = 'postgres'
        sr_check_period = 1
        {backends}
        """
    files = {"pgpool.conf": _dedent(conf), "pool_hba.conf": "", "pcp.conf": ""}
    options = ["-n", "-f", "pgpool.conf", "-a", "pool_hba.conf", "-F", "pcp.conf"]
    with _running("pgpool", options, files, port) as there:
        yield f"postgresql+psycopg://postgres@127.0.0.1:{port}/postgres" if there else None


@contextmanager
def _running(
    program: str, options: Sequence[str], files: dict[str, str], port: int
) -> Iterator[bool]:
    command = shutil.which(program, path=SEARCH)
    if command is None:
        print(f"{program} is not installed: scripts/install-servers benchmarks/servers.txt")
        yield False
        return
    who = programs.account()
    home = Path(tempfile.mkdtemp(prefix="bench-", dir=programs.temporary_root(who)))
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, home, ignore_errors=True)
        for name, text in files.items():
            (home / name).write_text(text)
            who.own(home / name)
        who.own(home)
        log = stack.enter_context((home / "log").open("w"))
        process = subprocess.Popen(
            [command, *options], cwd=home, stdout=log, stderr=log, **who.options()
        )
        # Pgpool-II ends its children only where it is asked, not killed.
        stack.callback(process.wait, 20.0)
        stack.callback(process.terminate)
        _await(process, port, home / "log")
        yield True


def _await(process: "subprocess.Popen[bytes]", port: int, log: Path) -> None:
    deadline = time.monotonic() + STARTUP
    while process.poll() is None and time.monotonic() < deadline:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1.0):
            return
        time.sleep(0.05)
    raise RuntimeError(f"{process.args!r} does not listen: {log.read_text()[-2000:]}")


def _dedent(text: str) -> str:
    return "".join(line.strip() + "\n" for line in text.splitlines() if line.strip())
