"""docker/'s own shell scripts, run without Docker: the cluster of compose.yaml on loopback."""

import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import sqlalchemy as sa

import router
from router.testing.ports import HOST, free_port
from tests.docker.stage import SCRIPTS, Stage, end


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


def test_scripts_make_a_cluster_that_streams(stage: Stage) -> None:
    """Primary, two replicas and PgBouncer started at once, as Compose may: both replicas stream,
    the router reads from them through PgBouncer, and a second start keeps the data."""
    stage.ports = {"primary": free_port()}
    primary = stage.primary()
    replicas = {name: stage.replica(name) for name in ("replica1", "replica2")}
    # pg_basebackup streams too while it copies, under its own name.
    streaming = "SELECT count(*) = {} FROM pg_stat_replication WHERE state = 'streaming'"
    streaming += " AND application_name LIKE 'replica%'"
    stage.until("primary", streaming.format(2), primary)
    for name, process in replicas.items():
        stage.until(name, "SELECT pg_is_in_recovery()", process)
    names = "SELECT application_name, slot_name FROM pg_stat_replication JOIN pg_replication_slots"
    found = stage.execute("primary", names + " ON pid = active_pid ORDER BY 1")
    assert found == [("replica1", "replica1"), ("replica2", "replica2")]
    everybody = "SELECT count(*) FROM pg_hba_file_rules WHERE auth_method <> 'scram-sha-256'"
    assert stage.execute("primary", everybody) == [(0,)]

    _route(stage)

    end(replicas["replica1"])
    stage.until("primary", streaming.format(1), primary)
    again = stage.replica("replica1")
    stage.until("replica1", "SELECT count(*) = 1 FROM item", again)
    end(again)
    shutil.rmtree(stage.home / "replica1")
    stage.until("replica1", "SELECT pg_is_in_recovery()", stage.replica("replica1"))

    end(replicas["replica2"])
    end(primary)
    stage.until(
        "primary",
        "SELECT count(*) = 1 FROM item",
        stage.primary(),
    )


def _route(stage: Stage) -> None:
    stage.pgbouncer()
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
