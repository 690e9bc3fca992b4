"""``pg-router wait`` and ``pg-router pins``, as a shell sees them."""

import json
import time
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from router.cli.app import app
from router.model import Lsn
from router.pins.token import Entry, Tokens
from router.testing import Cluster

SECRET = "sixteen-or-more-characters"
ENTRY = Entry("0123456789abcdef", 1_700_000_000.0, Lsn.parse("0/3000148"), 2)


def run(*arguments: str, **kwargs: Any) -> Any:
    return CliRunner().invoke(app, arguments, **kwargs)


def test_wait_for_a_whole_cluster(cluster: Cluster) -> None:
    """With every node up it ends with 0 and tells how each of them stands."""
    given = [a for replica in cluster.replicas for a in ("--replica", replica.url())]
    need = str(len(cluster.replicas))
    done = run("wait", "--url", cluster.primary.url(), *given, "--need", need)
    assert done.exit_code == 0, done.output
    assert "writable" in done.output
    assert done.output.count(" replica ") == len(cluster.replicas)


def test_wait_in_vain(cluster: Cluster) -> None:
    """A replica that is needed and does not answer is status 1 once the time is up."""
    given = ["--url", cluster.primary.url(), "--replica", "127.0.0.1:1", "--timeout", "0.5"]
    began = time.monotonic()
    done = run("wait", *given, "--need", "1")
    assert done.exit_code == 1
    assert "not usable in time" in done.output
    assert 0.5 <= time.monotonic() - began < 10


def test_wait_for_more_than_there_are() -> None:
    """More replicas needed than configured would wait for ever: status 2, nothing is asked."""
    done = run("wait", "--url", "postgresql://127.0.0.1:1/x", "--need", "1")
    assert done.exit_code == 2
    assert "only 0 replicas" in done.output


def test_wait_without_end() -> None:
    """A timeout that is no number of seconds would wait for ever: status 2, nothing is asked."""
    done = run("wait", "--url", "postgresql://127.0.0.1:1/x", "--timeout", "nan")
    assert (done.exit_code, "--timeout nan: give" in done.output) == (2, True)


def test_a_secret_file_that_is_no_text(tmp_path: Path) -> None:
    """A file of secrets in another encoding is status 2 and one line."""
    path = tmp_path / "secret"
    path.write_bytes(b"\xff\xfe")
    done = run("pins", "x", "--secret-file", str(path))
    assert (done.exit_code, "--secret-file: not UTF-8" in done.output) == (2, True)


def test_pins_verified(tmp_path: Path) -> None:
    """With the secret the signature is judged, and position and timeline are told."""
    path = tmp_path / "secret"
    path.write_text(SECRET + "\n")
    token = Tokens(SECRET, 60).sign([ENTRY])
    told = json.loads(run("pins", token, "--secret-file", str(path), "--json").output)
    (pin,) = told["pins"]
    assert told["verified"] is True
    assert (pin["lsn"], pin["timeline"], pin["written"]) == ("0/3000148", 2, 1_700_000_000.0)
    path.write_text("another-secret-than-it-was")
    done = run("pins", token, "--secret-file", str(path))
    assert done.exit_code == 1
    assert "not signed" in done.output


def test_pins_not_verified() -> None:
    """Without the secret it says that nothing was verified, and shows the same."""
    done = run("pins", Tokens(SECRET, 60).sign([ENTRY]))
    assert done.exit_code == 0, done.output
    assert "signature: not verified" in done.output
    assert "past 0/3000148 on timeline 2; written 2023-11-14 22:13:20+00:00" in done.output


@pytest.mark.parametrize("token", ["", "x", "1~zz.y", "ü.x", "1~" + "a" * 2000])
def test_pins_of_no_token(token: str) -> None:
    """What is no token is status 1 in one line, whatever it is."""
    done = run("pins", "--", token)
    assert done.exit_code == 1
    assert "TOKEN: " in done.output


def test_pins_with_a_short_secret() -> None:
    """A secret that no service could have is wrong usage, and is not shown."""
    done = run("pins", "x", "--secret-file", "-", input="geheim")
    assert done.exit_code == 2
    assert "16 characters" in done.output
    assert "geheim" not in done.output
