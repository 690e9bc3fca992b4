"""docker/'s own shell scripts, run without Docker: the cluster of compose.yaml on loopback."""

import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa

import router
from router.testing import programs
from router.testing.home import Home
from router.testing.ports import HOST, free_port
from tests.servers import require

DOCKER = Path(__file__).parents[2] / "docker"
SCRIPTS = sorted(DOCKER.glob("*/*.sh"))
SECRETS = {"POSTGRES_PASSWORD": "o'ne", "REPLICATION_PASSWORD": "tw o", "APP_PASSWORD": "three"}
APP = {"APP_DATABASE": "blog"}
STARTUP = 30.0


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_scripts_are_clean(script: Path) -> None:
    """Each script is POSIX shell in which shellcheck finds nothing, and may be executed."""
    # By its path: CI runs the environment's interpreter without its directory in PATH.
    shellcheck = str(Path(sys.executable).with_name("shellcheck"))
    command = [shellcheck, "--shell=sh", "--enable=all", "--severity=style"]
    # Braces around each variable are a matter of taste.
    command.append("--exclude=SC2250")
    done = subprocess.run([*command, script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert script.stat().st_mode & 0o111 == 0o111


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
        self.stack.callback(_end, process)
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

    def execute(self, name: str, sql: str, user: str = "postgres") -> list[tuple[Any, ...]]:
        secret = SECRETS["POSTGRES_PASSWORD" if user == "postgres" else "APP_PASSWORD"]
        with psycopg.connect(
            host=HOST, port=self.ports[name], user=user, password=secret, dbname="blog",
            autocommit=True, connect_timeout=5,
        ) as connection:  # fmt: skip
            cursor = connection.execute(sql.encode())
            return cursor.fetchall() if cursor.description else []

    def until(self, name: str, sql: str, process: "subprocess.Popen[Any]") -> None:
        """Wait until `sql` is true there; the log when it is not in time."""
        deadline = time.monotonic() + STARTUP
        log = self.home / f"{name}.log"
        while time.monotonic() < deadline and process.poll() is None:
            try:
                if self.execute(name, sql)[0][0] is True:
                    return
            except psycopg.OperationalError:
                pass
            time.sleep(0.02)
        pytest.fail(f"{name}: not so: {sql}\n{log.read_text()}")


def _end(process: "subprocess.Popen[Any]") -> None:
    # What compose.yaml stops with: a fast shutdown, which waits for no client.
    process.send_signal(signal.SIGINT)
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


@pytest.fixture
def stage() -> Iterator[Stage]:
    who = programs.account()
    home = Home(who)
    try:
        who.own(home.path)
        binaries = programs.find(who, home.path)
        scripts = home.path / "scripts"  # root's source tree may be closed to others
        scripts.mkdir(mode=0o755)
        for script in SCRIPTS:
            shutil.copy(script, scripts)
        with ExitStack() as stack:
            yield Stage(home.path, binaries, scripts, who, stack)
    finally:
        home.remove()


def test_scripts_make_a_cluster_that_streams(stage: Stage) -> None:
    """Primary, two replicas and PgBouncer started at once, as Compose may: both replicas stream,
    the router reads from them through PgBouncer, and a second start keeps the data."""
    stage.ports = {"primary": free_port()}
    primary = stage.postgres("primary.sh", "primary", **SECRETS, **APP)
    replicas = {name: stage.replica(name) for name in ("replica1", "replica2")}
    streaming = "SELECT count(*) = {} FROM pg_stat_replication WHERE state = 'streaming'"
    stage.until("primary", streaming.format(2), primary)
    for name, process in replicas.items():
        stage.until(name, "SELECT pg_is_in_recovery()", process)
    names = "SELECT application_name, slot_name FROM pg_stat_replication JOIN pg_replication_slots"
    found = stage.execute("primary", names + " ON pid = active_pid ORDER BY 1")
    assert found == [("replica1", "replica1"), ("replica2", "replica2")]
    everybody = "SELECT count(*) FROM pg_hba_file_rules WHERE auth_method <> 'scram-sha-256'"
    assert stage.execute("primary", everybody) == [(0,)]

    _route(stage, primary)

    _end(replicas["replica1"])
    stage.until("primary", streaming.format(1), primary)
    again = stage.replica("replica1")
    stage.until("replica1", "SELECT count(*) = 1 FROM item", again)
    _end(again)
    shutil.rmtree(stage.home / "replica1")
    stage.until("replica1", "SELECT pg_is_in_recovery()", stage.replica("replica1"))

    _end(replicas["replica2"])
    _end(primary)
    stage.until(
        "primary",
        "SELECT count(*) = 1 FROM item",
        stage.postgres("primary.sh", "primary", **SECRETS, **APP),
    )


def _route(stage: Stage, primary: "subprocess.Popen[Any]") -> None:
    pool = stage.home / "pool"
    pool.mkdir()
    stage.who.own(pool)
    stage.ports["pool"] = free_port()
    process = stage.run(
        "pgbouncer.sh",
        "pool",
        PGBOUNCER=require("pgbouncer"),
        CONFIG=str(pool),
        PRIMARY=f"{HOST}:{stage.ports['primary']}",
        REPLICAS=f"{HOST}:{stage.ports['replica1']} {HOST}:{stage.ports['replica2']}",
        LISTEN=HOST,
        PORT=str(stage.ports["pool"]),
        APP_PASSWORD=SECRETS["APP_PASSWORD"],
        **APP,
    )
    deadline = time.monotonic() + STARTUP
    while process.poll() is None and time.monotonic() < deadline:
        try:
            if stage.execute("pool", "SELECT 1", "blog"):
                break
        except psycopg.OperationalError:
            time.sleep(0.02)
    url = f"postgresql+psycopg://blog:three@{HOST}:{stage.ports['pool']}/blog"
    engine = router.create_engine(
        url,
        replicas=[f"{url}_replica{number}" for number in (1, 2)],
        pgbouncer="transaction",
    )
    try:
        with engine.begin() as connection:
            connection.execute(sa.text("CREATE TABLE item AS SELECT 'tea' AS name"))
        for _ in range(500):
            with engine.connect() as connection:
                where = sa.text("SELECT current_setting('cluster_name'), name FROM item")
                name, item = connection.execute(where).one()
            assert item == "tea"
            if name.startswith("replica"):
                break
            time.sleep(0.01)
        else:
            pytest.fail(str(engine.router.stats()))
    finally:
        engine.dispose()
