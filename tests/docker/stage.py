"""The services of compose.yaml started by docker/'s own scripts, without Docker."""

import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
import pytest

from router.testing import programs, versions
from router.testing.ports import HOST, free_port
from tests.servers import home, require

DOCKER = Path(__file__).parents[2] / "docker"
SCRIPTS = sorted(DOCKER.glob("*/*.sh"))
SECRETS = {"POSTGRES_PASSWORD": "o'ne", "REPLICATION_PASSWORD": "tw o", "APP_PASSWORD": "three"}
APP = {"APP_DATABASE": "blog"}
STARTUP = 30.0


@dataclass
class Stage:
    """Programs run by the scripts, as the account PostgreSQL may run under."""

    home: Path
    binaries: Path
    scripts: Path
    who: programs.Account
    stack: ExitStack
    ports: dict[str, int] = field(default_factory=dict)

    def run(self, script: str, name: str, *arguments: str, **env: str) -> "subprocess.Popen[Any]":
        """Start a script; `name` names its data directory, its log and its port."""
        options = self.who.options()
        path = f"{self.binaries}:{options['env']['PATH']}"
        options["env"] |= {"PATH": path, "PGDATA": str(self.home / name), **env}
        with (self.home / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                ["sh", self.scripts / script, *arguments],
                cwd=self.home,
                stdout=log,
                stderr=log,
                start_new_session=True,
                **options,
            )
        self.stack.callback(end, process)
        return process

    def postgres(self, script: str, name: str, **env: str) -> "subprocess.Popen[Any]":
        port = self.ports.setdefault(name, free_port())
        settings = {
            "listen_addresses": HOST,
            "port": str(port),
            "unix_socket_directories": "",
            "fsync": "off",
            "shared_buffers": "16MB",
            "dynamic_shared_memory_type": "mmap",
        }
        given = [part for item in settings.items() for part in ("-c", "=".join(item))]
        return self.run(script, name, *given, **env)

    def replica(self, name: str) -> "subprocess.Popen[Any]":
        return self.postgres(
            "replica.sh",
            name,
            REPLICATION_PASSWORD=SECRETS["REPLICATION_PASSWORD"],
            REPLICA_NAME=name,
            PRIMARY_HOST=HOST,
            PRIMARY_PORT=str(self.ports["primary"]),
        )

    def primary(self) -> "subprocess.Popen[Any]":
        return self.postgres("primary.sh", "primary", **SECRETS, **APP)

    def pgbouncer(self) -> "subprocess.Popen[Any]":
        """PgBouncer before the primary and two replicas, called pool."""
        home = self.home / "pool"
        home.mkdir()
        self.who.own(home)
        port = self.ports["pool"] = free_port()
        process = self.run(
            "pgbouncer.sh",
            "pool",
            PGBOUNCER=require("pgbouncer"),
            CONFIG=str(home),
            PRIMARY=f"{HOST}:{self.ports['primary']}",
            REPLICAS=f"{HOST}:{self.ports['replica1']} {HOST}:{self.ports['replica2']}",
            LISTEN=HOST,
            PORT=str(port),
            APP_PASSWORD=SECRETS["APP_PASSWORD"],
            **APP,
        )
        self.until("pool", "SELECT true", process, "blog")
        return process

    def execute(self, name: str, sql: str, user: str = "postgres") -> list[tuple[Any, ...]]:
        secret = SECRETS["POSTGRES_PASSWORD" if user == "postgres" else "APP_PASSWORD"]
        with psycopg.connect(
            host=HOST, port=self.ports[name], user=user, password=secret, dbname="blog",
            autocommit=True, connect_timeout=5,
        ) as connection:  # fmt: skip
            cursor = connection.execute(sql.encode())
            return cursor.fetchall() if cursor.description else []

    def until(
        self, name: str, sql: str, process: "subprocess.Popen[Any]", user: str = "postgres"
    ) -> None:
        """Wait until `sql` is true there; the log when it is not in time."""
        deadline = time.monotonic() + STARTUP
        log = self.home / f"{name}.log"
        while time.monotonic() < deadline and process.poll() is None:
            try:
                if self.execute(name, sql, user)[0][0] is True:
                    return
            except psycopg.OperationalError:
                pass
            time.sleep(0.02)
        pytest.fail(f"{name}: not so: {sql}\n{log.read_text()}")


def end(process: "subprocess.Popen[Any]") -> None:
    # What compose.yaml stops with: a fast shutdown, which waits for no client.
    process.send_signal(signal.SIGINT)
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


@contextmanager
def set_up() -> Iterator[Stage]:
    """A directory of its own for the servers, all ended with the block."""
    with home() as (path, who), ExitStack() as stack:
        binaries = programs.reachable(who, path, versions.wheel())
        scripts = path / "scripts"  # root's source tree may be closed to others
        scripts.mkdir(mode=0o755)
        for script in SCRIPTS:
            shutil.copy(script, scripts)
        yield Stage(path, binaries, scripts, who, stack)
