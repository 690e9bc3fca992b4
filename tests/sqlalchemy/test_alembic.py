"""Migrations by Alembic run on the primary alone, with the env.py of the documentation."""

import re
import sys
from collections.abc import Callable, Iterator
from io import StringIO
from pathlib import Path
from types import ModuleType
from urllib.parse import urlencode

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from router.rules.context import ROOT
from tests.conftest import Database
from tests.pgbouncer import bouncer, pooled

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "migrate.md"
TEMPLATE = """
revision = ${repr(up_revision)}
down_revision = ${repr(down_revision)}
import sqlalchemy as sa
from alembic import op

def upgrade():
    ${upgrades if upgrades else "pass"}

def downgrade():
    ${downgrades if downgrades else "pass"}
"""


class Base(DeclarativeBase):
    pass


class Tag(Base):
    __tablename__ = "tag"
    id: Mapped[int] = mapped_column(primary_key=True)


Run = Callable[..., str]


@pytest.fixture
def run(database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Run]:
    """Runs an Alembic command as a new process would, and gives what it says."""
    found = re.search(r"```python\n# migrations/env.py\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert found
    (tmp_path / "versions").mkdir()
    (tmp_path / "env.py").write_text(found[1])
    (tmp_path / "script.py.mako").write_text(TEMPLATE)
    models = ModuleType("shop.models")
    models.Base = Base  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "shop", ModuleType("shop"))
    monkeypatch.setitem(sys.modules, "shop.models", models)
    monkeypatch.setenv("DATABASE_URL", database.primary_url())
    monkeypatch.setenv("DATABASE_REPLICAS", ",".join(database.replica_urls()))

    def call(name: str, *arguments: str, **options: object) -> str:
        ROOT.pins.clear()
        said = StringIO()
        config = Config(stdout=said)
        config.set_main_option("script_location", str(tmp_path))
        config.set_main_option("path_separator", "os")
        getattr(command, name)(config, *arguments, **options)
        return said.getvalue()

    return call  # type: ignore[return-value]


def test_alembic_never_asks_a_replica(run: Run, database: Database) -> None:
    """Writing a revision, upgrading, checking and downgrading work while replay stands still, each
    as a process that has not written yet."""
    with database.cluster.replay_paused():
        run("revision", autogenerate=True, rev_id="one")
        run("upgrade", "head")
        assert database.execute("SELECT version_num FROM alembic_version") == [("one",)]
        assert run("current").strip() == "one (head)"
        run("check")  # would raise if the table were missing where it looks
        run("upgrade", "head")
        run("downgrade", "base")
        assert database.execute("SELECT to_regclass('tag')") == [(None,)]


REVISION = """
revision, down_revision = "one", None
from alembic import op

def upgrade():
    op.execute("SET lock_timeout = '2s'")
    op.execute("CREATE TABLE who AS SELECT pg_backend_pid() AS pid")
    op.execute("CREATE TEMP TABLE aside (id int)")
"""


def test_alembic_goes_past_pgbouncer(
    run: Run, database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Behind a PgBouncer the same env.py migrates over session_url: what needs a session works,
    and the server process is none of PgBouncer's."""
    (tmp_path / "versions" / "one.py").write_text(REVISION)
    with bouncer(database.cluster, database.name) as (primary, replicas):
        options = {"pgbouncer": "true", "session_url": database.primary_url()}
        monkeypatch.setenv("DATABASE_URL", f"{primary}?{urlencode(options)}")
        monkeypatch.setenv("DATABASE_REPLICAS", ",".join(replicas))
        run("upgrade", "head")
        assert run("current").strip() == "one (head)"
        ((pid,),) = database.execute("SELECT pid FROM who")
        processes = pooled(int(primary.rpartition(":")[2].partition("/")[0]))
    assert processes
    assert pid not in processes


def test_what_alembic_made_is_routed_like_everything_else(run: Run, database: Database) -> None:
    """After a migration the replicas serve the new table once they have replayed it."""
    import router

    run("revision", autogenerate=True, rev_id="one")
    run("upgrade", "head")
    database.cluster.wait_caught_up()
    ROOT.pins.clear()
    engine = router.create_engine(database.primary_url(), database.replica_urls())
    with engine.connect() as connection:
        port = sa.text("SELECT inet_server_port() FROM (SELECT count(*) FROM tag) AS x")
        served = connection.execute(port).scalar_one()
    engine.dispose()
    assert served in {replica.port for replica in database.cluster.replicas}
