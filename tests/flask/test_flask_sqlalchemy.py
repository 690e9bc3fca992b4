"""With Flask-SQLAlchemy, Flask-SQLAlchemy-Lite and Flask-Migrate as they are: the engine plugin
routes, the extension adds pins and commands."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import flask_migrate  # type: ignore[import-untyped]
import pytest
import sqlalchemy as sa
from flask import Flask
from flask_sqlalchemy import SQLAlchemy
from flask_sqlalchemy_lite import SQLAlchemy as Lite
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from router.errors import ConfigError
from router.flask import Router
from router.rules.context import ROOT
from tests.conftest import Database
from tests.flask.kit import views
from tests.flask.test_extension import said, served

EXTENSIONS: list[Any] = [SQLAlchemy, Lite]


def configured(items: Database, **options: Any) -> Flask:
    """An app with the keys of both extensions."""
    app = Flask("shop")
    routed = {"plugins": ["router"], "replicas": items.replica_urls(), **options}
    url = items.primary_url("psycopg")
    app.config.from_mapping(
        TESTING=False,  # else a stranger shares the test's pins
        SECRET_KEY="dev",
        SQLALCHEMY_DATABASE_URI=url,
        SQLALCHEMY_ENGINE_OPTIONS=routed,
        SQLALCHEMY_BINDS={"stats": {"url": url, "plugins": ["router"], "replicas": []}},
        SQLALCHEMY_ENGINES={"default": {"url": url, **routed}},
    )
    return app


def dispose(app: Flask) -> None:
    with app.app_context():
        for engine in app.extensions["sqlalchemy"].engines.values():
            engine.dispose()
    ROOT.pins.clear()


@pytest.fixture(params=EXTENSIONS, ids=["Flask-SQLAlchemy", "Flask-SQLAlchemy-Lite"])
def app(request: pytest.FixtureRequest, items: Database) -> Iterator[Flask]:
    app = configured(items)
    db = request.param(app)
    Router(app)
    views(app, lambda: db.session)
    yield app
    dispose(app)


def test_their_session_is_routed_and_their_clients_followed(
    app: Flask, items: Database, paused: None
) -> None:
    """db.session reads from replicas and writes to the primary; who wrote sees it in the next
    request, and a stranger does not."""
    client = app.test_client()
    assert served(items, client.get("/")).startswith("replica")
    assert "Set-Cookie" in client.post("/").headers
    mine = client.get("/")
    assert (served(items, mine), said(mine)["count"]) == ("primary", 1)
    assert said(app.test_client().get("/"))["count"] == 0


def test_the_commands_know_their_engines(app: Flask) -> None:
    """`flask router status` asks the Routers of their engines, and explain takes their binds."""
    runner = app.test_cli_runner()
    done = runner.invoke(args=["router", "status"])
    assert done.exit_code == 0, done.output
    assert "default: " in done.output
    assert done.output.count(" replica ") == 2
    done = runner.invoke(args=["router", "explain", "SELECT 1"])
    assert "goes to: replica1" in done.output


def test_the_session_is_theirs(app: Flask) -> None:
    """Where they make the engines, ours has no session and says whose to use."""
    with app.app_context():
        router = app.extensions["router"].owner
        assert router.engine is app.extensions["sqlalchemy"].engine
        with pytest.raises(ConfigError, match="use its session"):
            router.session()


def test_an_orm_unit_of_work(items: Database) -> None:
    """Models of Flask-SQLAlchemy are written on the primary and read, paginated and counted from
    replicas; a model of a bind uses that bind's engine."""

    class Base(DeclarativeBase):
        pass

    db = SQLAlchemy(model_class=Base)

    class Item(db.Model):  # type: ignore[name-defined,misc]
        id: Mapped[int] = mapped_column(primary_key=True)
        name: Mapped[str]

    class Stat(db.Model):  # type: ignore[name-defined,misc]
        __bind_key__ = "stats"
        id: Mapped[int] = mapped_column(primary_key=True)

    app = configured(items)
    db.init_app(app)
    router = Router(app)
    with app.app_context():
        db.create_all()
        db.session.add_all([Item(name=f"item {n}") for n in range(30)])
        db.session.add(Stat())
        db.session.commit()
        items.cluster.wait_caught_up()
        router.routers["default"].refresh()
        page = db.paginate(sa.select(Item).order_by(Item.id), page=2, per_page=10)
        assert [item.name for item in page] == [f"item {n}" for n in range(10, 20)]
        assert page.total == 30
        where = sa.select(Item.name, sa.func.inet_server_port()).limit(1)
        port = db.session.execute(where).one()[1]
        assert items.served_by(port).name.startswith("replica")
        assert db.session.get_bind(Stat) is db.engines["stats"]
        assert db.session.scalars(sa.select(Stat.id)).all() == [1]
    dispose(app)


def test_an_engine_that_does_not_route_is_refused(items: Database) -> None:
    """Flask-SQLAlchemy without the plugin, our engine keys beside it, or its init_app after ours:
    each is told with the cure."""
    app = configured(items)
    app.config.update(SQLALCHEMY_ENGINE_OPTIONS={}, SQLALCHEMY_BINDS={})
    SQLAlchemy(app)
    with pytest.raises(ConfigError, match="no engine of Flask-SQLAlchemy is routed"):
        Router(app)
    app.config["ROUTER_REPLICAS"] = ["db2"]
    with pytest.raises(ConfigError, match="ROUTER_REPLICAS: Flask-SQLAlchemy makes the engines"):
        Router(app)
    late = configured(items)
    router = Router(late)
    SQLAlchemy(late)
    with late.app_context(), pytest.raises(ConfigError, match="call its init_app first"):
        _ = router.engine


REVISION = """
revision = "1"
down_revision = None
import sqlalchemy as sa
from alembic import op

def upgrade():
    op.create_table("tag", sa.Column("id", sa.Integer, primary_key=True))
    op.execute("INSERT INTO item (name) VALUES ('migrated')")

def downgrade():
    op.drop_table("tag")
"""


# Its env.py asks Flask-SQLAlchemy the old way first.
@pytest.mark.filterwarnings("ignore:'get_engine' is deprecated")
def test_migrations_run_on_the_primary(
    items: Database, tmp_path: Path, paused: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`flask db upgrade` and `downgrade`, each as a process that has not written yet, work while
    replay stands still: nothing of them is read from a replica."""
    # Its env.py would silence the loggers of all other tests.
    monkeypatch.setattr("logging.config.fileConfig", lambda *args, **options: None)
    db = SQLAlchemy(metadata=sa.MetaData())
    app = configured(items)
    app.config.update(SQLALCHEMY_BINDS={})
    db.init_app(app)
    Router(app)
    place = str(tmp_path / "migrations")
    flask_migrate.Migrate(app, db, directory=place)
    runner = app.test_cli_runner()

    def run(*arguments: str) -> None:
        ROOT.pins.clear()  # as another process
        done = runner.invoke(args=["db", *arguments])
        assert done.exit_code == 0, (done.output, done.exception)

    run("init")
    (tmp_path / "migrations" / "versions" / "1_tag.py").write_text(REVISION)
    run("upgrade")
    assert items.execute("SELECT version_num FROM alembic_version") == [("1",)]
    assert items.execute("SELECT name FROM item") == [("migrated",)]
    run("upgrade")  # nothing left to do
    run("downgrade")
    assert items.execute("SELECT to_regclass('tag')") == [(None,)]
    dispose(app)
