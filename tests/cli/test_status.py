"""``pg-router status``, as a shell sees it."""

import json
import os
import re
import signal
import subprocess
import sys
from typing import Any

import psycopg
import pytest
from click.testing import CliRunner

import router
from router import wsgi
from router.cli.app import app
from router.testing import Cluster
from tests.conftest import Database
from tests.doctor.test_doctor import APP
from tests.pgbouncer import bouncer
from tests.pins.kit import serve_app


def run(*arguments: str) -> Any:
    return CliRunner().invoke(app, arguments)


def servers(cluster: Cluster) -> list[str]:
    found = ["--url", cluster.primary.url()]
    for replica in cluster.replicas:
        found += ["--replica", replica.url()]
    return found


def test_status_of_a_cluster(cluster: Cluster) -> None:
    """Every node's role and state are told, and by name who is connected to it."""
    with psycopg.connect(cluster.primary.url(), application_name="shop-web"):
        done = run("status", *servers(cluster))
    assert done.exit_code == 0, done.output
    rows = {line.split()[0]: line for line in done.output.splitlines()}
    assert rows["primary"].split()[1:4] == ["primary", "in", "use"]
    assert " of 197 " in rows["primary"]
    assert rows["shop-web:"].split()[1:] == ["1,", "0", "busy"]
    assert rows["replica1"].split()[1] == "replica"


def test_status_as_json(cluster: Cluster) -> None:
    """--json tells the same for programs, and what the server bears."""
    with psycopg.connect(cluster.primary.url(), application_name="shop-web"):
        told = json.loads(run("status", "--json", *servers(cluster)).output)
    assert (told["writable"], told["primary"]) == (True, "primary")
    node = told["nodes"][0]
    assert node["asked"]["room"] == {"max_connections": 200, "reserved": 3}
    mine = [c for c in node["asked"]["clients"] if c["application"] == "shop-web"]
    assert mine == [{"application": "shop-web", "connections": 1, "busy": 0}]


def test_status_through_a_pgbouncer(database: Database) -> None:
    """PgBouncer's SHOW POOLS stands under each node behind it, as columns and as JSON; to a user
    whom the console refuses nothing is told of it."""
    database.execute(APP)
    with bouncer(database.cluster, database.name) as (primary, replicas):
        given = ["--url", primary, "--replica", replicas[0]]
        done = run("status", *given)
        told = json.loads(run("status", "--json", *given).output)
        refused = run("status", "--url", primary.replace("postgres@", "app@"))
    assert done.exit_code == 0, done.output
    assert done.output.count("    PgBouncer, postgres by transaction: ") == 2
    assert "0 waiting (0.0 s)" in done.output
    (pool,) = told["nodes"][1]["asked"]["pools"]
    assert (pool["user"], pool["mode"], pool["waiting"]) == ("postgres", "transaction", 0)
    assert pool["clients"] >= 1
    assert " of 197 " in refused.output
    assert "PgBouncer, " not in refused.output


def test_status_counts_no_connection_of_its_own(cluster: Cluster) -> None:
    """Neither the connection that asks nor those that probe are told among the clients, whatever
    name the URL gives them."""
    names = "SELECT application_name FROM pg_stat_activity WHERE backend_type = 'client backend'"
    there = {name for (name,) in cluster.primary.execute(names)}
    url = cluster.primary.url() + "?application_name=mine"
    told = json.loads(run("status", "--json", "--url", url).output)
    assert told["nodes"][0]["role"] == "primary"
    assert {c["application"] for c in told["nodes"][0]["asked"]["clients"]} <= there


def test_status_without_a_primary() -> None:
    """Status 1 where no primary answers; what cannot be known is a question mark."""
    done = run("status", "--url", "postgresql://app:s3cret@127.0.0.1:1/x")
    assert done.exit_code == 1
    assert "no primary" in done.output
    assert "? of ?" in done.output
    assert "s3cret" not in done.output
    assert "event=" not in done.stderr


def test_status_with_a_replica_down(cluster: Cluster) -> None:
    """A replica that is down is a problem of that line; the status is 0 all the same."""
    done = run("status", "--url", cluster.primary.url(), "--replica", "127.0.0.1:1")
    assert done.exit_code == 0, done.output
    (row,) = [line for line in done.output.splitlines() if line.startswith("replica1")]
    assert row.split()[2] == "problem"


TOKEN = "a token of sixteen or more"


def test_status_with_an_application(cluster: Cluster) -> None:
    """--app asks an application's status page: its connections, traffic and blacklist stand under
    each node, as columns and as JSON; the token is taken from the environment too."""
    urls = cluster.primary.url(), [r.url() for r in cluster.replicas]
    engine = router.create_engine(urls[0], replicas=urls[1], blacklist_duration=60)
    page = wsgi.mount(lambda *_: [], "/ops", wsgi.StatusPage(engine.router, token=TOKEN))
    try:
        engine.connect().close()  # the first of an engine takes a connection
        with engine.begin() as connection, serve_app(page) as url:
            connection.exec_driver_sql("CREATE TEMP TABLE t ()")
            engine.router.health.failed(engine.router.snapshot.node("replica2"), "08006")
            given = ["status", *servers(cluster), "--app", f"{url}ops/"]
            done = run(*given, "--token", TOKEN)
            told = json.loads(
                CliRunner(env={"PG_ROUTER_STATUS_TOKEN": TOKEN})
                .invoke(app, [*given, "--json"])
                .output
            )
            refused = run(*given)
    finally:
        engine.dispose()
    assert done.exit_code == 0, done.output
    seen = [line for line in done.output.splitlines() if "of the application: " in line]
    assert len(seen) == 3
    assert all(line.startswith(f"    process {os.getpid()} of the application: ") for line in seen)
    assert "connections: 1 in use, 0 idle" in seen[0]
    assert re.search(
        r"connections: 0 in use, \d idle; blacklisted for 5\d\.\d s more: 08006", seen[2]
    )
    assert told["application"] == {"process": os.getpid(), "problem": ""}
    assert told["nodes"][2]["application"]["blacklisted"]["reason"] == "08006"
    assert told["nodes"][0]["application"]["connections"] == {"in_use": 1, "idle": 0}
    assert refused.exit_code == 0  # the servers answered
    assert refused.output.splitlines()[-1] == (
        "the application was not asked: it answers 401: give its token by --token or "
        "PG_ROUTER_STATUS_TOKEN"
    )


def answering(status: str, body: bytes = b"", *headers: tuple[str, str]) -> Any:
    def answer(_: Any, start_response: Any) -> list[bytes]:
        start_response(status, list(headers))
        return [body]

    return answer


OTHERS = {"process": 1, "clusters": [{"name": "a", "nodes": []}, {"name": "b", "nodes": []}]}
NO_PAGE = "its answer is no status page's: give the URL it is mounted at"
MISTAKES = {
    "elsewhere": (
        answering("404 Not Found"),
        "it answers 404: give the URL the page is mounted at",
    ),
    "moved": (
        answering("302 Found", b"", ("Location", "/x")),
        "it answers 302: is that a status page?",
    ),
    "text": (answering("200 OK", b"hello"), NO_PAGE),
    "list": (answering("200 OK", b"[1]"), NO_PAGE),
    "others": (
        answering("200 OK", json.dumps(OTHERS).encode()),
        "of the clusters it shows (a, b) none is",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_status_with_an_application_that_is_none(cluster: Cluster, mistake: str) -> None:
    """What cannot be asked is told in a line with the cure; the servers are told all the same."""
    answer, says = MISTAKES[mistake]
    with serve_app(answer) as url:
        done = run("status", "--url", cluster.primary.url(), "--app", url)
    assert done.exit_code == 0, done.output
    assert f"the application was not asked: {says}" in done.output


def test_status_with_an_application_that_is_away(cluster: Cluster) -> None:
    """An application that is not there is a line; one that cannot be is wrong usage."""
    url = cluster.primary.url()
    done = run("status", "--url", url, "--app", "http://127.0.0.1:1/ops")
    assert "the application was not asked: [Errno 111]" in done.output
    wrong = run("status", "--url", url, "--app", "ops")
    assert wrong.exit_code == 2
    assert "--app: give an http:// or https:// URL" in wrong.output


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_watch_as_json_is_one_object_a_line(cluster: Cluster, number: signal.Signals) -> None:
    """--watch asks again and again; with --json each answer is a line a program can read. Ctrl-C
    and SIGTERM end it with status 130."""
    command = [sys.executable, "-m", "router.cli", "status", "--watch", "0.2", "--json"]
    with subprocess.Popen(
        [*command, "--url", cluster.primary.url()], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        try:
            seen = [json.loads(process.stdout.readline())["writable"] for _ in range(2)]
        finally:
            process.send_signal(number)
    assert seen == [True, True]
    assert process.returncode == 130


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion(shell: str) -> None:
    """The script for each shell asks the command itself, by the variable click looks for."""
    done = run("completion", shell)
    assert done.exit_code == 0, done.output
    assert f"_PG_ROUTER_COMPLETE={shell}_complete" in done.output


def test_what_completion_offers() -> None:
    """The command answers a shell with the commands that begin so."""
    asked = {
        "_PG_ROUTER_COMPLETE": "zsh_complete",
        "COMP_WORDS": "pg-router st",
        "COMP_CWORD": "1",
    }
    done = CliRunner(env=asked).invoke(app, [], prog_name="pg-router")
    assert "status" in done.output.split()
    assert "budget" not in done.output.split()
