"""``pg-router config`` and ``pg-router budget``, as a shell sees them."""

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import router
from router import Config
from router.cli.app import app
from router.testing import Cluster
from tests.conftest import Database
from tests.pgbouncer import bouncer

FILE = """
[pg-router]
url = "postgresql://app:s3cret@db1/shop"
replicas = ["db2"]
max_connections = 50
workers = 3
"""


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PGHOST", "PGPORT", "PGUSER", "PGPASSWORD", "PGDATABASE", "PGSERVICE"):
        monkeypatch.delenv(name, raising=False)


def run(*arguments: str, **variables: str) -> Any:
    return CliRunner(env=dict(variables)).invoke(app, arguments, standalone_mode=True)


def test_config_shows_every_value_with_its_source(tmp_path: Path) -> None:
    """A file's and the environment's values are told apart, and no password is shown."""
    path = tmp_path / "shop.toml"
    path.write_text(FILE)
    shown = run("config", "--file", str(path), PG_ROUTER_PIN_MAX="9")
    assert shown.exit_code == 0, shown.output
    rows = {line.split()[0]: " ".join(line.split()[1:]) for line in shown.output.splitlines()}
    assert rows["primary.password"] == f"*** {path} [pg-router] url"
    assert rows["pin_max"] == "9.0 PG_ROUTER_PIN_MAX"
    assert rows["pin_duration"] == "5.0 default"
    assert "s3cret" not in shown.output


def test_config_as_json() -> None:
    """--json is a list of objects with name, value and source, for programs."""
    shown = run("config", "--json", "--from", "mediafusion",
                POSTGRES_URI="postgresql://app:s3cret@db1/shop")  # fmt: skip
    rows = {row["name"]: row for row in json.loads(shown.output)}
    assert rows["workers"]["source"] == "MediaFusion's default for GUNICORN_WORKERS"
    assert rows["max_connections"]["value"] == 50
    assert rows["read_functions"]["value"] == []
    assert "s3cret" not in shown.output


@pytest.mark.parametrize(
    ("arguments", "variables", "message"),
    [
        ((), {}, "PG_ROUTER_URL: no host"),
        ((), {"PG_ROUTER_URL": "postgresql://u:s3cret@h", "PG_ROUTER_PIN_MXA": "1"}, "PIN_MXA"),
        (("--url", "postgresql://h", "--from", "libpq"), {}, "--url and --from exclude"),
        (("--file", "none.toml"), {}, "none.toml: No such file"),
        (("--from", "libpq"), {}, "PGHOST: no host"),
    ],
)
@pytest.mark.parametrize("command", ["config", "budget"])
def test_a_wrong_setting_is_status_2(
    command: str, arguments: tuple[str, ...], variables: dict[str, str], message: str
) -> None:
    """What cannot be loaded ends with status 2 and names the key, without its password."""
    done = run(command, *arguments, **variables)
    assert done.exit_code == 2
    assert message in done.output
    assert "s3cret" not in done.output


def servers(cluster: Cluster) -> list[str]:
    found = ["--url", cluster.primary.url()]
    for replica in cluster.replicas:
        found += ["--replica", replica.url()]
    return found


def test_a_budget_that_fits(cluster: Cluster) -> None:
    """The arithmetic is shown for each server and compared with its own max_connections."""
    done = run("budget", *servers(cluster), "--workers", "4", "--horsies", "8")
    assert done.exit_code == 0, done.output
    lines = done.output.splitlines()
    assert len(lines) == 1 + 1 + len(cluster.replicas)
    for line in lines[1:]:
        assert "4 × (5 + 10 + 1) + 23 = 87; max_connections 200 − 3 reserved = 197: fits" in line


def test_a_budget_that_is_over(cluster: Cluster) -> None:
    """Status 1, and the last line names the servers and the cure."""
    done = run("budget", *servers(cluster), "--workers", "13")
    assert done.exit_code == 1
    assert "13 × (5 + 10 + 1) = 208" in done.output
    assert done.output.splitlines()[-1].startswith(f"127.0.0.1:{cluster.primary.port}, 127.0.0.1")


def test_a_budget_as_json(cluster: Cluster) -> None:
    """--json tells the same for programs: sizes, and each server's need, room and verdict."""
    url = cluster.primary.url() + "?max_connections=50&workers=3&replica="
    url += f"127.0.0.1:{cluster.replicas[0].port}"
    told = json.loads(run("budget", "--json", "--url", url).output)
    assert (told["ok"], told["pool_size"], told["max_overflow"]) == (True, 8, 0)
    (primary, replica) = told["servers"]
    assert primary["room"] == {"max_connections": 200, "reserved": 3}
    assert (primary["needed"], replica["needed"], replica["over"]) == (27, 27, False)


@pytest.mark.parametrize(("pool_size", "verdict"), [(98, "fits"), (99, "over")])
def test_a_pgbouncer_and_the_servers_behind_it(
    database: Database, pool_size: int, verdict: str
) -> None:
    """Its clients are compared with its max_client_conn, and what it may open to each server with
    that server's max_connections: two databases of one server count together. So does the
    doctor."""
    first, replica = database.cluster.primary, database.cluster.replicas[0]
    again = f"\nagain = host={first.host} port={first.port} dbname={database.name}\n"
    with bouncer(database.cluster, database.name, pool_size, entries=again) as (pooled, replicas):
        apart = f"{pooled}?pgbouncer=true&replica={replicas[0]}"
        together = f"{pooled}?pgbouncer=true&replica={pooled.rpartition('/')[0]}/again"
        done = run("budget", "--url", apart)
        assert done.exit_code == 0, done.output
        address = pooled.partition("@")[2].partition("/")[0]
        for server, line in zip((first, replica), done.output.splitlines()[2:], strict=True):
            assert line.startswith(f"{server.host}:{server.port} behind {address} (")
            assert f"pool_size {pool_size}; max_connections 200 − 3 reserved = 197: fits" in line
        done = run("budget", "--url", together)
        assert done.exit_code == (verdict == "over")
        total = f"pool_size {pool_size} + {pool_size} = {2 * pool_size}; max_connections 200"
        assert f"{total} − 3 reserved = 197: {verdict}" in done.output
        found = {(f.level, f.code) for f in router.doctor(Config.from_url(together)).findings}
        assert (("error", "budget") in found) == (verdict == "over")


def test_a_server_that_cannot_be_asked(cluster: Cluster) -> None:
    """It is said of that server only, and the status is 1: an unknown budget does not fit."""
    free = "127.0.0.1:1"
    done = run("budget", "--url", cluster.primary.url(), "--replica", free)
    assert done.exit_code == 1
    assert f"{free} (replica1)" in done.output
    assert "not asked: " in done.output
    assert ": fits" in done.output
