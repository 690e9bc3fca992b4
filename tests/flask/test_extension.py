"""The extension by itself: engines and a session from ``app.config``, pins, commands."""

import asyncio
import json
from typing import Any

import pytest
import sqlalchemy as sa
from flask import Flask, current_app, stream_with_context
from flask.testing import FlaskClient, FlaskCliRunner
from sqlalchemy.ext.asyncio import async_sessionmaker
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.pool import NullPool

import router as pg_router
from router.errors import ConfigError
from router.flask import Router
from router.pins.options import COOKIE
from tests.conftest import Database
from tests.flask.conftest import MakeApp
from tests.flask.kit import COUNT, INSERT


def extension(app: Flask) -> Router:
    found = app.extensions["router"].owner
    assert isinstance(found, Router)
    return found


def said(answer: Any) -> Any:
    return answer.json


def served(items: Database, answer: Any) -> str:
    return items.served_by(answer.json["port"]).name


def test_reads_and_writes_go_their_ways(client: FlaskClient, items: Database) -> None:
    """A view's reads are served by a replica and its writes reach the primary."""
    assert served(items, client.get("/")).startswith("replica")
    assert served(items, client.post("/")).startswith("replica")
    assert items.execute("SELECT count(*) FROM item") == [(1,)]


def test_who_wrote_sees_it_in_the_next_request(
    client: FlaskClient, items: Database, paused: None
) -> None:
    """While replay stands still a client sees its own write, by the cookie alone, and another
    client sees the replicas' state; without its cookie it is a stranger too."""
    answer = client.post("/")
    assert COOKIE in answer.headers["Set-Cookie"]
    assert "private" in answer.headers["Cache-Control"]
    mine, other = client.get("/"), client.application.test_client().get("/")
    assert (served(items, mine), said(mine)["count"]) == ("primary", 1)
    assert served(items, other).startswith("replica")
    assert said(other)["count"] == 0
    client.delete_cookie(COOKIE)
    assert said(client.get("/"))["count"] == 0


def test_requests_that_only_read_set_no_cookie(client: FlaskClient) -> None:
    """A response to a read is left as the view made it."""
    answer = client.get("/")
    assert "Set-Cookie" not in answer.headers
    assert "Vary" not in answer.headers


def test_the_cookie_follows_flasks_own(make_app: MakeApp, paused: None) -> None:
    """Security, SameSite, path and domain are those of Flask's session cookie, unless ROUTER_PINS
    says otherwise."""
    app = make_app(
        SESSION_COOKIE_SECURE=True, SESSION_COOKIE_SAMESITE="strict", APPLICATION_ROOT="/shop"
    )
    cookie = app.test_client().post("/").headers["Set-Cookie"]
    for part in ("Secure", "SameSite=Strict", "Path=/shop", "HttpOnly"):
        assert part in cookie
    pins = {"cookie": "pin", "secure": False, "samesite": "Lax", "path": "/"}
    cookie = make_app(ROUTER_PINS=pins).test_client().post("/").headers["Set-Cookie"]
    assert cookie.startswith("pin=")
    assert "Path=/; HttpOnly; SameSite=Lax" in cookie
    assert "Secure" not in cookie
    apart = {"SESSION_COOKIE_PARTITIONED": True, "SESSION_COOKIE_SECURE": True}
    cookie = make_app(**apart).test_client().post("/").headers["Set-Cookie"]
    assert cookie.endswith("Secure; Partitioned")


def test_a_test_and_its_requests_read_each_others_writes(make_app: MakeApp, paused: None) -> None:
    """With TESTING what a test writes in an app context its client reads, and the reverse."""
    app = make_app(TESTING=True)
    session = extension(app).session
    with app.app_context():
        session.execute(INSERT)
        session.commit()
    answer = app.test_client().get("/")
    assert (said(answer)["count"], "Set-Cookie" in answer.headers) == (1, False)
    app.test_client().post("/")
    with app.app_context():
        assert session.execute(COUNT).one()[0] == 2


def token_of(app: Flask) -> str:
    cookie = app.test_client()
    cookie.post("/")
    found = cookie.get_cookie(COOKIE)
    assert found is not None
    return found.value


def test_keys_are_rotated_as_flasks_are(app: Flask, make_app: MakeApp, paused: None) -> None:
    """A cookie of the old key counts while SECRET_KEY_FALLBACKS has it, and no longer."""
    token = token_of(app)
    for keys, seen in (
        ({"SECRET_KEY": "new", "SECRET_KEY_FALLBACKS": [b"older", "dev"]}, 1),
        ({"SECRET_KEY": b"dev", "SECRET_KEY_FALLBACKS": ["new"]}, 1),
        ({"SECRET_KEY": "new"}, 0),
    ):
        client = make_app(**keys).test_client()
        client.set_cookie(COOKIE, token)
        assert said(client.get("/"))["count"] == seen, keys


def test_the_key_signs_no_cookie_of_flasks(app: Flask) -> None:
    """The secret of the pins is derived from the app's key and is not the key."""
    with app.app_context():
        carrier = extension(app).carrier
        assert carrier.tokens.ids("x") != pg_router.PinCarrier("dev" * 10).tokens.ids("x")
        assert carrier.max_age == 60.0


def test_requests_by_unsafe_methods_may_be_kept_on_the_primary(
    make_app: MakeApp, items: Database
) -> None:
    """With ROUTER_SAFE_METHODS a request by any other method reads from the primary, and the
    next one by a safe method from a replica."""
    client = make_app(ROUTER_SAFE_METHODS=["get", "HEAD"]).test_client()
    assert served(items, client.post("/search")) == "primary"
    assert served(items, client.get("/")).startswith("replica")


def test_without_pins_the_application_stays_as_it_was(make_app: MakeApp) -> None:
    """ROUTER_PINS = False leaves the middleware out and needs no key; the carrier says so."""
    app = make_app(ROUTER_PINS=False, SECRET_KEY=None)
    assert "Set-Cookie" not in app.test_client().post("/").headers
    with app.app_context(), pytest.raises(ConfigError, match="ROUTER_PINS: it is False"):
        _ = extension(app).carrier


def test_a_job_takes_the_pins_along(app: Flask, paused: None) -> None:
    """The carrier of the app's pins hands a request's write to a job."""
    router = extension(app)

    @app.post("/enqueue")
    def enqueue() -> dict[str, str]:
        router.session.execute(INSERT)
        router.session.commit()
        return router.carrier.headers()

    headers = app.test_client().post("/enqueue").json
    with app.app_context(), router.carrier.received(headers):
        assert router.session.execute(COUNT).one()[0] == 1


def test_a_session_ends_with_its_app_context(app: Flask) -> None:
    """One session for each app context, removed at its end with what was not committed."""
    router = extension(app)
    with app.app_context():
        session = router.session()
        assert router.session() is session
        session.execute(INSERT)
        assert session.in_transaction()
        with app.app_context():
            assert router.session() is not session
    assert not session.in_transaction()
    with app.app_context():
        assert router.session.execute(COUNT).one()[0] == 0
    with pytest.raises(RuntimeError, match="application context"):
        router.session()


def test_flask_sqlalchemys_keys_as_they_stand(make_app: MakeApp, items: Database) -> None:
    """Its URI, engine options, echo and binds make our engines, without it being there."""
    app = make_app(
        ROUTER_DATABASE_URI=None,
        ROUTER_REPLICAS=None,
        SQLALCHEMY_DATABASE_URI=items.primary_url("psycopg"),
        SQLALCHEMY_ENGINE_OPTIONS={
            "plugins": ["router"],
            "replicas": items.replica_urls(),
            "pool_size": "3",
        },
        SQLALCHEMY_BINDS={"stats": items.primary_url()},
    )
    assert served(items, app.test_client().get("/")).startswith("replica")
    with app.app_context():
        engines = extension(app).engines
        assert engines.keys() == {"default", "stats"}
        assert not extension(app).routers["stats"].replicas


def test_the_environment_configures(
    make_app: MakeApp, items: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Flask's prefixed variables are enough, options of the pins included."""
    monkeypatch.setenv("SHOP_ROUTER_DATABASE_URI", items.primary_url())
    monkeypatch.setenv("SHOP_ROUTER_REPLICAS", ",".join(items.replica_urls()))
    monkeypatch.setenv("SHOP_ROUTER_PINS__max_age", "30")
    environment = Flask("environment").config
    environment.from_prefixed_env("SHOP")
    app = make_app(**{key: v for key, v in environment.items() if key.startswith("ROUTER_")})
    with app.app_context():
        assert len(extension(app).routers["default"].servers) == 3
        assert extension(app).carrier.max_age == 30


class Base(DeclarativeBase):
    """Declarative base of the bind "stats"."""


class Item(Base):
    """The table of `make_app`'s database."""

    __tablename__ = "item"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]


def test_binds(make_app: MakeApp, items: Database) -> None:
    """Each bind has an engine, a Router and options of its own; models may be bound by name."""
    app = make_app(
        extension=Router(session_options={"binds": {Base: "stats"}}),
        ROUTER_BINDS={"stats": {"url": items.primary_url(), "replicas": [], "name": "stats"}},
    )
    router = extension(app)
    with app.app_context():
        router.session.add(Item(name="tea"))
        router.session.commit()
        where = sa.select(Item.name, sa.func.inet_server_port())
        name, port = router.session.execute(where).one()
        assert (name, items.served_by(port).name) == ("tea", "primary")
        assert router.routers["stats"].cluster == "stats"
        assert router.engine is router.engines["default"]
        assert router.session.get_bind() is router.engine


def test_a_bind_may_be_another_database(make_app: MakeApp) -> None:
    """A bind that is not PostgreSQL and has no replicas is a plain engine; with replicas it is a
    mistake."""
    app = make_app(ROUTER_BINDS={"local": "sqlite://"})
    with app.app_context():
        router = extension(app)
        assert list(router.routers) == ["default"]
        with router.engines["local"].connect() as connection:
            assert connection.scalar(sa.text("SELECT sqlite_version()"))
    with pytest.raises(ConfigError, match=r"engine 'local': url: .* not a PostgreSQL"):
        make_app(ROUTER_BINDS={"local": {"url": "sqlite://", "replicas": ["db2"]}})


def test_one_extension_serves_several_apps(make_app: MakeApp, items: Database) -> None:
    """Engines, sessions and pins of one app are not another's."""
    router = Router()
    one = make_app(extension=router)
    two = make_app(extension=router, ROUTER_REPLICAS=[])
    assert served(items, one.test_client().get("/")).startswith("replica")
    assert served(items, two.test_client().get("/")) == "primary"
    with one.app_context():
        first, carrier = router.engine, router.carrier
    with two.app_context():
        assert router.engine is not first
        assert router.carrier is not carrier


def test_an_async_view_shares_the_pins_of_its_request(
    app: Flask, items: Database, paused: None
) -> None:
    """What tasks and threads of an async view write, by a synchronous or an asynchronous engine,
    the next request of the client sees."""
    router = extension(app)
    # Each async view has an event loop of its own, so connections must not outlive it.
    url = items.primary_url("asyncpg")
    engine = pg_router.create_async_engine(url, items.replica_urls(), poolclass=NullPool)

    @app.post("/async")
    async def write() -> str:
        def in_thread() -> None:
            with router.engine.begin() as connection:
                connection.execute(INSERT)

        async def in_task() -> None:
            async with async_sessionmaker(engine)() as session:
                await session.execute(INSERT)
                await session.commit()

        await asyncio.gather(asyncio.to_thread(in_thread), in_task())
        return "done"

    @app.get("/async")
    async def read() -> list[int]:
        async with engine.connect() as connection:
            count, port = (await connection.execute(COUNT)).one()
        return [count, port]

    client = app.test_client()
    assert COOKIE in client.post("/async").headers["Set-Cookie"]
    assert said(client.get("/"))["count"] == 2
    assert client.get("/async").json == [2, items.cluster.primary.port]
    assert said(app.test_client().get("/async"))[0] == 0
    engine.router.close()


def test_a_stream_reads_and_an_error_page_carries(app: Flask, paused: None) -> None:
    """A view that wrote and then failed sets the cookie with its error page, and a streamed
    response is inside the request's context until its end."""
    app.testing = False
    router = extension(app)

    @app.post("/fail")
    def fail() -> str:
        router.session.execute(INSERT)
        router.session.commit()
        raise LookupError

    @app.post("/stream")
    def stream() -> Any:
        def chunks() -> Any:
            with router.engine.begin() as connection:
                connection.execute(INSERT)
            with router.engine.connect() as connection:
                yield json.dumps(connection.execute(COUNT).one()[0])

        return app.response_class(stream_with_context(chunks()), mimetype="application/json")

    answer = app.test_client().post("/fail")
    assert (answer.status_code, COOKIE in answer.headers["Set-Cookie"]) == (500, True)
    assert app.test_client().post("/stream").json == 2


def test_status_tells_every_node(runner: FlaskCliRunner, items: Database) -> None:
    """`flask router status` names nodes, roles and addresses, and ends with 0."""
    done = runner.invoke(args=["router", "status"])
    assert done.exit_code == 0, done.output
    head, *nodes = done.output.splitlines()
    assert head.startswith("default: ")
    assert head.endswith(": writable")
    assert [line.split()[:2] for line in nodes] == [
        ["primary", "primary"],
        ["replica1", "replica"],
        ["replica2", "replica"],
    ]
    assert f":{items.cluster.primary.port}" in nodes[0]


def test_status_without_a_primary(make_app: MakeApp, items: Database) -> None:
    """Where no primary answers, status says so, ends with 1, and shows no password."""
    url = items.primary_url().replace(str(items.cluster.primary.port), "1")
    url = url.replace("//postgres@", "//postgres:hush@")
    done = make_app(ROUTER_DATABASE_URI=url).test_cli_runner().invoke(args=["router", "status"])
    assert done.exit_code == 1
    assert "no primary" in done.output
    assert "no answer" in done.output
    assert "hush" not in done.output


def test_doctor_asks_every_engine(runner: FlaskCliRunner) -> None:
    """`flask router doctor` tells what it found by engine; without an error it ends with 0."""
    done = runner.invoke(args=["router", "doctor", "--strict"])
    assert done.exit_code == 0, done.output
    assert done.output.startswith("default: ")
    assert "primary, replica1, replica2: 2 findings" in done.output


def test_doctor_ends_with_1_for_an_error(make_app: MakeApp, items: Database) -> None:
    """A replica that is not there is an error of `flask router doctor`."""
    app = make_app(ROUTER_REPLICAS=[*items.replica_urls(), "127.0.0.1:1"])
    done = app.test_cli_runner().invoke(args=["router", "doctor"])
    assert done.exit_code == 1, done.output
    assert "error: replica3: 127.0.0.1:1: " in done.output


def test_explain_says_where_and_why(runner: FlaskCliRunner) -> None:
    """`flask router explain` tells the rule and sends nothing; a wrong bind is a wrong usage."""
    done = runner.invoke(args=["router", "explain", "DELETE FROM item"])
    assert done.exit_code == 0
    assert "goes to: primary" in done.output
    done = runner.invoke(args=["router", "explain", "SELECT 1", "--bind", "defalt"])
    assert done.exit_code == 2
    assert "did you mean 'default'?" in done.output


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"SECRET_KEY": None}, "SECRET_KEY: it is missing"),
        ({"ROUTER_DATABASE_URI": None, "ROUTER_REPLICAS": None}, "ROUTER_DATABASE_URI: it is mis"),
        ({"ROUTER_DATABASE_URI": None}, "ROUTER_REPLICAS: of which primary"),
        ({"ROUTER_BINDS": {"stats": {}}}, r"ROUTER_BINDS\['stats'\]: no url"),
        ({"ROUTER_BINDS": {"stats": "db"}}, "engine 'stats': Could not parse"),
        ({"ROUTER_ENGINE_OPTIONS": {"pin_maxx": 1}}, "did you mean 'pin_max'"),
        ({"ROUTER_PINS": {"max_agee": 1}}, "did you mean 'max_age'"),
        ({"ROUTER_PINS": 7}, "ROUTER_PINS: an int is neither"),
        ({"ROUTER_PINS": "hunter2"}, "ROUTER_PINS: a str is neither"),
        ({"ROUTER_ENGINE_OPTIONS": "x"}, "ROUTER_ENGINE_OPTIONS: it is a str: give a mapping"),
        ({"ROUTER_BINDS": ["x"]}, "ROUTER_BINDS: it is a list: give a mapping"),
        ({"ROUTER_DATABASE_URI": "postgresql://u:hunter2@h:x/d"}, "the port must be a number"),
        ({"ROUTER_STATUS_URL_PREFIX": "/x", "ROUTER_STATUS_TOKEN": 5}, "TOKEN: it is an int"),
        ({"ROUTER_SAFE_METHODS": 5}, "ROUTER_SAFE_METHODS: give a list"),
        ({"ROUTER_SAFE_METHODS": "GET"}, "ROUTER_SAFE_METHODS: 'GET' is one text"),
        ({"ROUTER_PINS": False, "ROUTER_SAFE_METHODS": ["GET"]}, "ROUTER_SAFE_METHODS: it needs"),
        ({"SESSION_COOKIE_SAMESITE": "None"}, "only with secure=True"),
    ],
)
def test_a_mistake_is_told_when_the_app_is_made(config: dict[str, Any], message: str) -> None:
    """A wrong or missing key is refused by init_app in one line with the cure."""
    app = Flask("shop")
    app.config.update(
        SECRET_KEY="dev", ROUTER_DATABASE_URI="postgresql://db1/shop", ROUTER_REPLICAS=["db2"]
    )
    app.config.update(config)
    with pytest.raises(ConfigError, match=message) as caught:
        Router(app)
    assert "\n" not in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_misuse_is_told(app: Flask) -> None:
    """A second extension on one app, one that does not serve it, and a bind nobody knows."""
    with pytest.raises(ConfigError, match="has one already"):
        Router(app)
    with app.app_context(), pytest.raises(ConfigError, match="does not serve 'shop'"):
        _ = Router().engine
    other = Flask("other")
    other.config.update(SECRET_KEY="x", ROUTER_DATABASE_URI="postgresql://db1/shop")
    with pytest.raises(ConfigError, match="no bind is called 'stats'"):
        Router(other, session_options={"binds": {Base: "stats"}})
    with app.app_context():
        assert extension(current_app) is extension(app)
