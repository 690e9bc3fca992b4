"""``pg-router pgbouncer-ini``: a real PgBouncer starts from what it writes and routes."""

import base64
import re
import stat
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import sqlalchemy as sa
from click.testing import CliRunner

import router
from router.cli.app import app
from router.config.config import Config
from router.config.pgbouncer_ini import databases, md5, scram
from router.config.sources.pgbouncer import parse
from router.errors import ConfigError
from router.testing import Cluster
from tests.conftest import MakeCluster
from tests.pgbouncer import free_port, running

PORT = sa.text("SELECT inet_server_port()")


def write(cluster: Cluster, directory: Path, *arguments: str, password: str = "") -> Any:
    """Run the command for a cluster's primary and first replica, in `directory`."""
    first, second, *_ = cluster.urls()
    if password:
        first = sa.make_url(first).set(password=password).render_as_string(hide_password=False)
    given = ["--url", first, "--replica", f"127.0.0.1:{sa.make_url(second).port}"]
    command = ["pgbouncer-ini", *given, "--directory", str(directory), *arguments]
    return CliRunner().invoke(app, command)


def written(directory: Path) -> tuple[str, str]:
    """Both files."""
    return (directory / "pgbouncer.ini").read_text(), (directory / "userlist.txt").read_text()


def through(directory: Path, **options: Any) -> tuple[int, int]:
    """The ports that serve a write and a read of an engine configured by the file."""
    replica = ["postgres_replica1"]
    config = Config.from_pgbouncer_ini(
        directory / "pgbouncer.ini", "postgres", replica, user="postgres", **options
    )
    engine = router.create_engine(config)
    engine.router.start()
    with engine.begin() as connection:
        writer = connection.scalar(PORT)
    with engine.connect() as connection:
        reader = connection.scalar(PORT)
    engine.dispose()
    return int(writer or 0), int(reader or 0)


@pytest.mark.parametrize("auth", ["md5", "scram-sha-256"])
def test_hashed_passwords_open_it(cluster: Cluster, tmp_path: Path, auth: str) -> None:
    """With --hash the list holds no password; clients log in by it, and reads and writes of one
    PgBouncer go to replica and primary by database name."""
    port = free_port()
    arguments = ("--auth", auth, "--hash", "--port", str(port))
    done = write(cluster, tmp_path, *arguments, password="s3cret")
    assert done.exit_code == 0, done.output
    assert "s3cret" not in done.output
    files = written(tmp_path)
    assert "s3cret" not in "".join(files)
    assert stat.S_IMODE((tmp_path / "userlist.txt").stat().st_mode) == 0o600
    with running(*files, port):
        assert through(tmp_path, password="s3cret") == (
            cluster.primary.port,
            cluster.replicas[0].port,
        )
        with pytest.raises(router.PrimaryUnavailable):
            through(tmp_path, password="wrong")
        for size, verdict in ((5, "fits"), (50, "over")):
            url = f"postgresql://postgres:s3cret@127.0.0.1:{port}/postgres?pgbouncer=true"
            wanted = f"{url}&replicas=127.0.0.1&pool_size={size}&max_overflow=0"
            asked = CliRunner().invoke(app, ["budget", "--url", wanted])
            total = 2 * (size + 1)
            assert f"= {total}; max_client_conn 100: {verdict}" in asked.output
            assert asked.exit_code == (verdict == "over")


@pytest.mark.parametrize("auth", ["md5", "scram-sha-256"])
def test_plain_passwords_open_servers_that_want_scram(
    make_cluster: MakeCluster, tmp_path: Path, auth: str
) -> None:
    """With passwords in the list PgBouncer logs in by SCRAM, whatever its clients do."""
    port = free_port()
    with make_cluster(1, password="s3cret") as cluster:
        done = write(cluster, tmp_path, "--auth", auth, "--port", str(port))
        assert done.exit_code == 0, done.output
        files = written(tmp_path)
        with running(*files, port):
            assert through(tmp_path, password="s3cret") == (
                cluster.primary.port,
                cluster.replicas[0].port,
            )


ODD = "p@s:s/w%or'd#?&+=,é \"\\$(x)[1]{2}<>|`~^;!*"


def test_odd_names_and_passwords(make_cluster: MakeCluster, tmp_path: Path) -> None:
    """Whatever a password, user, database or node is called, PgBouncer starts and routes; its own
    names for databases have no other characters than it takes."""
    port = free_port()
    with make_cluster(1, password=ODD) as cluster:
        cluster.primary.execute('CREATE DATABASE "my ""db"" x\'y"')
        cluster.wait_caught_up()
        hosts = ",".join(f"{server.host}:{server.port}" for server in cluster.servers)
        several = f"postgresql://postgres:{quote(ODD, safe='')}@{hosts}/my%20%22db%22%20x%27y"
        command = ["pgbouncer-ini", "--directory", str(tmp_path), "--port", str(port)]
        done = CliRunner().invoke(app, [*command, "--url", several])
        assert done.exit_code == 0, done.output
        name = "my__db__x_y"
        replica = f"{name}_127.0.0.1_{cluster.replicas[0].port}"
        assert f": {name}, {replica}\n" in done.output
        with running(*written(tmp_path), port):
            engine = router.create_engine(
                Config.from_pgbouncer_ini(
                    tmp_path / "pgbouncer.ini", name, [replica], user="postgres", password=ODD
                )
            )
            engine.router.start()
            with engine.connect() as connection:
                assert connection.scalar(PORT) == cluster.replicas[0].port
            with engine.begin() as connection:
                assert connection.scalar(PORT) == cluster.primary.port
            engine.dispose()
    twice = ["h:1", {"host": "h", "port": 2, "name": "a_b"}, {"host": "h", "name": "a:b"}]
    with pytest.raises(ConfigError, match=r"a:b .*'shop_a_b' is another node's"):
        databases(Config.from_url("postgresql://h/shop", twice))


def test_files_that_are_there_are_kept(cluster: Cluster, tmp_path: Path) -> None:
    """A file is written over only with --force; without a directory the ini is printed."""
    (tmp_path / "pgbouncer.ini").write_text("mine")
    done = write(cluster, tmp_path)
    assert (done.exit_code, (tmp_path / "pgbouncer.ini").read_text()) == (2, "mine")
    assert "--force" in done.output
    assert write(cluster, tmp_path, "--force").exit_code == 0
    printed = CliRunner().invoke(app, ["pgbouncer-ini", "--url", "postgresql://u:s3cret@h/shop"])
    assert "shop = host=h port=5432 dbname=shop\n" in printed.output
    assert "s3cret" not in printed.output


def test_secrets_are_what_postgresql_makes_of_them(cluster: Cluster) -> None:
    """Md5 and SCRAM of a password equal what the server keeps for the same password and salt."""
    for kind, made in (("md5", None), ("scram-sha-256", r"\$4096:([^$]+)\$")):
        encryption = f"SET password_encryption = '{kind}'"
        cluster.primary.execute(f"{encryption}; CREATE ROLE w PASSWORD 'pß'")
        ((kept,),) = cluster.primary.execute("SELECT rolpassword FROM pg_authid WHERE rolname='w'")
        cluster.primary.execute("DROP ROLE w")
        if made is None:
            assert md5("w", "pß") == kept
        else:
            (salt,) = re.findall(made, kept)
            assert scram("pß", base64.b64decode(salt)) == kept


INI = """
; Soapbox's layout
[databases]
soapbox = host=10.0.0.1 port=5432 dbname='so''ap'
"soapbox ro" = host=10.0.0.2 dbname='so''ap' pool_mode=session
# behind
[pgbouncer]
listen_addr = *
listen_port = 6433
pool_mode = transaction
max_prepared_statements = 100
"""


def test_a_pgbouncer_ini_is_a_source(tmp_path: Path) -> None:
    """Entries by name become primary and replica at PgBouncer's address, each as it is pooled."""
    path = tmp_path / "pgbouncer.ini"
    path.write_text(INI)
    config = Config.from_pgbouncer_ini(path, "soapbox", ["soapbox ro"], user="app", pin_max=9)
    primary, (replica,) = config.primary, config.replicas
    assert (primary.host, primary.port, primary.dbname) == ("127.0.0.1", 6433, "soapbox")
    assert (replica.port, replica.dbname, replica.user) == (6433, "soapbox ro", "app")
    assert (config.pooling(primary), config.pooling(replica)) == ("transaction", "session")
    assert config.prepared_statements is True
    rows = {name: source for name, _, source in config.explain().rows}
    assert rows["prepared_statements"] == f"{path} max_prepared_statements"
    assert parse(INI, "x").databases["soapbox ro"]["dbname"] == "so'ap"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[databases]\nshopp = host=h\n", "no entry 'shop' (did you mean 'shopp'?)"),
        ("shop = host=h\n", ":1: neither a section nor 'name = value'"),
        ("%include x\n", ":1: %include is not followed"),
        (
            "[databases]\nshop = host=h\n[pgbouncer]\nmax_prepared_statements = many\n",
            "max_prepared_statements: 'many' is not a number",
        ),
        ("[databases]\nshop = host=h\n[pgbouncer]\npool_mode = fast\n", "'fast' is none of tra"),
        (
            "[databases]\nshop = host=h\n[pgbouncer]\nlisten_port = x\n",
            "listen_port: the text is no port",
        ),
    ],
)
def test_a_pgbouncer_ini_that_does_not_fit_is_refused(
    tmp_path: Path, text: str, says: str
) -> None:
    """What is missing or malformed is one line with the file and the line."""
    path = tmp_path / "pgbouncer.ini"
    path.write_text(text)
    with pytest.raises(ConfigError, match=re.escape(says)):
        Config.from_pgbouncer_ini(path, "shop")
    with pytest.raises(ConfigError, match="No such file"):
        Config.from_pgbouncer_ini(tmp_path / "none.ini", "shop")
