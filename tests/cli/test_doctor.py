"""``pg-router doctor``, as a shell sees it."""

import json

from tests.cli.test_status import run
from tests.conftest import Database


def test_a_sound_cluster(database: Database) -> None:
    """Status 0 where nothing worse than a note is found; --json tells the same."""
    cluster = ["--url", database.primary_url()]
    for url in database.replica_urls():
        cluster += ["--replica", url]
    done = run("doctor", "--strict", *cluster)
    assert done.exit_code == 0, done.output
    assert "note: replica1: " in done.output
    told = json.loads(run("doctor", "--json", *cluster).output)
    assert (told["ok"], told["nodes"]) == (True, ["primary", "replica1", "replica2"])
    assert {finding["code"] for finding in told["findings"]} == {"conflicts"}


def test_an_error_and_a_warning(database: Database) -> None:
    """Status 1 for an error; for a warning only with --strict."""
    gone = ["--url", "postgresql://app:s3cret@127.0.0.1:1/x"]
    done = run("doctor", *gone)
    assert done.exit_code == 1
    assert "[unreachable]" in done.output
    assert "s3cret" not in done.output
    pooled = ["--url", database.primary_url() + "?pgbouncer=true"]
    assert run("doctor", *pooled).exit_code == 0
    done = run("doctor", "--strict", "--json", *pooled)
    assert done.exit_code == 1
    assert json.loads(done.output)["ok"] is False
