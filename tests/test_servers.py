"""Servers that come in no wheel: installed, named or failed, but never silently left out."""

import os
import subprocess
from pathlib import Path

import pytest

from tests.servers import require

SCRIPT = Path(__file__).parents[1] / "scripts" / "install-servers"

MISSING = "no-such-serverd no-such-package a test of this very list\n"


def install(listed: str, tmp_path: Path, **env: str) -> subprocess.CompletedProcess[str]:
    """Runs the script where apt is a stand-in that installs nothing and notes its arguments."""
    servers = tmp_path / "servers.txt"
    servers.write_text(listed)
    apt = tmp_path / "apt-get"
    apt.write_text(f'#!/bin/sh\necho "$@" >>{tmp_path}/apt.log\ntest "$1" = update\n')
    apt.chmod(0o755)
    path = f"{tmp_path}:{os.environ['PATH']}"
    return subprocess.run(
        ["bash", SCRIPT, servers],
        env={"PATH": path, **env},
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.mark.parametrize("listed", ["", "# a comment\n\n", "sh dash\n"])
def test_nothing_missing_is_success(listed: str, tmp_path: Path) -> None:
    """An empty list, and a list of what is here already, succeed in CI and never call apt."""
    done = install(listed, tmp_path, CI="true")
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "apt.log").exists()


def test_missing_server_is_a_failure_in_ci(tmp_path: Path) -> None:
    """In CI a server that cannot be installed fails the run and is named with the command."""
    done = install(MISSING, tmp_path, CI="true")
    assert done.returncode == 1
    assert "type: sudo apt-get install no-such-package" in done.stderr


def test_missing_server_is_named_elsewhere(tmp_path: Path) -> None:
    """On a laptop a missing server is named with the command to type, and the run goes on."""
    done = install(MISSING, tmp_path)
    assert done.returncode == 0
    assert "type: sudo apt-get install no-such-package" in done.stderr


@pytest.mark.skipif(os.getuid() != 0, reason="only root may install")
def test_root_installs_through_apt(tmp_path: Path) -> None:
    """Root installs what is missing, and refreshes the package lists when that fails."""
    install(MISSING, tmp_path)
    first, second, third = (tmp_path / "apt.log").read_text().splitlines()
    assert first == third
    assert first.startswith("install")
    assert first.endswith("no-such-package")
    assert second.startswith("update")


def test_require_skips_on_a_laptop_and_fails_in_ci(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A test whose server is missing is skipped on a laptop and fails in CI."""
    servers = tmp_path / "servers.txt"
    servers.write_text(MISSING)
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(pytest.skip.Exception, match="apt-get install no-such-package"):
        require("no-such-serverd", servers)
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="apt-get install no-such-package"):
        require("no-such-serverd", servers)


def test_require_finds_a_server(tmp_path: Path) -> None:
    """A server that is here is found, and one nobody listed is refused."""
    servers = tmp_path / "servers.txt"
    servers.write_text("sh dash any shell\n")
    assert require("sh", servers).endswith("/sh")
    with pytest.raises(pytest.fail.Exception, match="not listed"):
        require("bash", servers)
