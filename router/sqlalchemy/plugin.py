"""Patches an engine's dialect: the one door into SQLAlchemy, an engine plugin named ``router``.

``sqlalchemy.create_engine(url, plugins=["router"], replicas=[…])``, the same by URL
(``?plugin=router&replica=…``), ``engine_from_config``, Flask-SQLAlchemy and Alembic all come
through here. The engine stays SQLAlchemy's own class.
"""

import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import unquote

import sqlalchemy
from sqlalchemy import Engine, make_url
from sqlalchemy.engine import URL, CreateEnginePlugin
from sqlalchemy.engine.interfaces import DBAPIConnection, Dialect
from sqlalchemy.pool import Pool, QueuePool
from sqlalchemy.util import get_cls_kwargs

from router.cluster.monitor import Monitor
from router.cluster.router import Router
from router.config.config import Config
from router.config.layers import apply_session_attrs
from router.config.options import OPTIONS, own_name, own_query
from router.config.server import CHOOSING, Server, split_hosts
from router.config.urls import one_host_each
from router.connect.parameters import environments
from router.errors import ConfigError, NoReplicaAvailable
from router.messages import did_you_mean, masked
from router.model import Node, app_name
from router.rules.pgbouncer import SHARED, check_search_path, check_startup
from router.sqlalchemy.drivers import ask, driver_of
from router.sqlalchemy.execution import routed_context, routed_dialect
from router.sqlalchemy.opening import Creator, Opening
from router.sqlalchemy.pool import RoutingPool
from router.sqlalchemy.session import watch_sessions
from router.sqlalchemy.source import InUse

CONFIG = "router_config"
"""The argument by which a whole `Config` is handed over; the URL then only names the driver."""


class RouterPlugin(CreateEnginePlugin):
    """Gives an engine a `RoutingPool` and lets its dialect route."""

    def __init__(self, url: URL, kwargs: dict[str, Any]) -> None:
        """Take what is ours out of the `url`'s query and out of `kwargs`, as ``create_engine``
        was given them. Raises ConfigError: an option is unknown or malformed; names it and the
        cure."""
        if kwargs.get("pool") is not None:
            raise ConfigError(
                "pool: the router makes one pool for each node and cannot use yours: leave it "
                "out, and use poolclass"
            )
        creator = kwargs.get("creator")
        if creator is not None and not callable(creator):
            raise ConfigError(f"creator: expected a function that connects, not {creator!r}")
        if kwargs.get("poolclass") is RoutingPool:
            raise ConfigError(
                "plugins: 'router' is named twice, in the URL and beside it: once will do"
            )
        config: Config | None = kwargs.pop(CONFIG, None)
        options = _options(url, kwargs)
        self.url: URL = self.update_url(url)
        self._given = config is not None
        if config is None:
            replicas = options.pop("replicas", ())
            primary, *beside = _servers(self.url)
            if beside or replicas or "discovery" in options:
                apply_session_attrs(self.url.query, options)
            config = Config.build(primary, replicas, beside=beside, **options)
        self.config: Config = config.but(**options) if options and self._given else config
        self.router: Router = Router(self.config)
        self._poolclass: type[Pool] | None = kwargs.pop("poolclass", None)
        self._connect_args: Mapping[str, Any] = kwargs.get("connect_args") or {}
        self._creator: Any = creator
        self._in_use: Callable[[], InUse | None] = lambda: None
        kwargs.update(self.config.pool_options(), poolclass=RoutingPool)

    def update_url(self, url: URL) -> URL:
        """The `url` without what belongs to the router."""
        ours = [key for key in url.query if own_name(key) is not None]
        return url.difference_update_query(ours)

    def handle_pool_kwargs(self, pool_cls: type[Pool], pool_args: dict[str, Any]) -> None:
        """As `CreateEnginePlugin` has it: let the dialect route, and give the pool its Router
        and a way to each node."""
        dialect: Any = pool_args["dialect"]
        driver_of(dialect)  # raises now, and not at the first statement
        dialect.execution_ctx_cls = routed_context(dialect.execution_ctx_cls)
        # Here, before create_engine() asks the dialect for its connect hooks.
        dialect.__class__ = routed_dialect(dialect.__class__)
        poolclass = self._poolclass or dialect.get_dialect_pool_class(self.url)
        if issubclass(poolclass, QueuePool) and poolclass._is_asyncio is not dialect.is_async:
            raise ConfigError(
                f"poolclass: {poolclass.__name__} and {dialect.driver} do not go together: use "
                f"{'AsyncAdaptedQueuePool' if dialect.is_async else 'QueuePool'}, or leave it out"
            )
        accepted = get_cls_kwargs(poolclass)
        for key in ("pool_size", "max_overflow", "timeout", "use_lifo"):
            if key in pool_args and key not in accepted:
                name = key if key in ("pool_size", "max_overflow") else f"pool_{key}"
                raise ConfigError(f"{name}: {poolclass.__name__} does not take it: leave it out")
        self._dialect: Dialect = dialect
        self._opening: Opening = Opening(dialect, self._creator)
        for server in self.router.servers.values():
            self._to_one(*self._arguments(server))  # raises now for what is malformed
        pool_args.update(
            router=self.router,
            config=self.config,
            connect_to=self._connect_to,
            connect_session_url=self._connect_session_url,
            poolclass=poolclass,
        )

    def _connect_to(self, node: Node) -> Creator | None:
        server = self.router.servers.get(node)
        if server is None:
            raise NoReplicaAvailable(f"{node} has left the cluster: try again")
        config = self.config
        alone = server is config.primary and not config.replicas and config.discovery is None
        as_it_is = not config.unprepared(server) and not config.schema
        args, parameters = self._arguments(server)
        parameters = driver_of(self._dialect).named(parameters, app_name(node))
        takes = self._opening.takes(args, parameters)
        if alone and (not takes or (self._creator is None and not self._given and as_it_is)):
            return None  # SQLAlchemy's own creator does it, or the user's
        create = self._opening.to(*self._to_one(args, parameters))
        path = config.search_path
        if config.begins_in(server) == path:
            return create
        return lambda rec: _checked(create(rec), path, str(node))

    def _connect_session_url(self) -> list[Creator]:
        return [
            self._opening.to(*self._to_one(*self._arguments(server)))
            for server in self.config.sessions()
        ]

    def _to_one(self, args: Any, parameters: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        """The driver's arguments `args` and `parameters`, which lead to one node. Raises
        ConfigError: the user's creator does not take them, and so leads all to one server."""
        config = self.config
        several = len(self.router.servers) > 1 or config.discovery is not None
        if (several or config.session_url) and not self._opening.takes(args, parameters):
            raise ConfigError(
                "creator: it takes no arguments, and so would connect every node to one server: "
                "let it take those of the driver's own connect(), such as def creator(**arguments)"
                ", or use the do_connect event"
            )
        return args, parameters

    def _arguments(self, server: Server) -> tuple[Any, dict[str, Any]]:
        args, parameters = self._dialect.create_connect_args(_url_for(self.url, server))
        found = {**self._defaults(server), **parameters, **self._connect_args}
        mode = self.config.pooling(server)
        if mode != "off":
            check_startup(found, f"{server.host}:{server.port}/{server.dbname}")
        if mode in SHARED and not driver_of(self._dialect).shareable:
            raise ConfigError(
                f"pgbouncer: {self._dialect.driver} sends a statement in parts that PgBouncer may "
                "give to different servers: use psycopg, psycopg2 or asyncpg, or pool_mode=session"
            )
        if path := self.config.begins_in(server):
            found |= driver_of(self._dialect).search_path(found, path)
        return args, found

    def _for_monitor(self, node: Node) -> Mapping[str, Any]:
        server, in_use = self.router.servers[node], self._in_use()
        loop = None if in_use is None else in_use.loop
        found = self._opening.reached_by(*self._arguments(server), loop)
        known = {k: v for k, v in server.connect_args().items() if k not in ("user", "password")}
        return known | found

    def _defaults(self, server: Server) -> dict[str, Any]:
        driver = driver_of(self._dialect)
        defaults = dict(driver.unprepared) if self.config.unprepared(server) else {}
        if driver.connect_timeout != "connect_timeout":
            return defaults | {driver.connect_timeout: self.config.connect_timeout}
        return defaults | environments(dict(self.config.libpq()))

    def engine_created(self, engine: Engine) -> None:
        """Show the Router as ``engine.router``."""
        monitor = Monitor(self.router, self._for_monitor)
        self.router.use_monitor(monitor)
        pool: RoutingPool = engine.pool  # type: ignore[assignment]
        in_use = pool.source.in_use = InUse(self._opening)
        self._in_use = weakref.ref(in_use)
        # Nobody has to dispose of an engine: a plain one leaves nothing behind either.
        weakref.finalize(in_use, monitor.let_go).atexit = False
        engine.router = self.router  # type: ignore[attr-defined]
        watch_sessions()


def _options(url: URL, kwargs: dict[str, Any]) -> dict[str, Any]:
    """The router's options from both places; a keyword argument wins over the URL."""
    options, _ = own_query(url.query)
    for key in list(kwargs):
        name = own_name(key)
        if name is not None and name not in ("replica", "plugin", "plugins"):
            options[name] = kwargs.pop(key)
    return options


def _servers(url: URL) -> list[Server]:
    """Every server that `url` names: several hosts are written as SQLAlchemy or libpq do."""
    if url.get_backend_name() not in ("postgresql", "postgres"):
        raise ConfigError(
            f"url: {masked(url.render_as_string())!r} is not a PostgreSQL URL: "
            "expected postgresql+psycopg://user:password@host:port/dbname"
        )
    # SQLAlchemy leaves a socket directory in the host's place as libpq has it: percent-encoded.
    host = unquote(url.host or _text(url.query.get("host", ""))) or "localhost"
    port = str(url.port or "") or _text(url.query.get("port", ""))
    _, separator, driver = url.drivername.partition("+")
    given = {k: v for k, v in url.query.items() if isinstance(v, str)}
    first = Server(
        host=host,
        user=url.username or "",
        password=str(url.password or ""),
        dbname=url.database or "",
        driver=driver if separator else "",
        params={k: v for k, v in given.items() if k not in ("host", "port")},
    )
    return split_hosts(first, host, port, "url")


def _text(value: str | Sequence[str]) -> str:
    return value if isinstance(value, str) else ",".join(value)


def _url_for(primary: URL, server: Server) -> URL:
    """The primary's URL, changed to where `server` differs."""
    query = {**primary.query, **server.params}
    for key in ("host", "port", *CHOOSING):
        query.pop(key, None)
    return primary.set(
        host=server.host,
        port=server.port,
        username=server.user or None,
        password=server.password or None,
        database=server.dbname or None,
        query=query,
    )


def _checked(connection: DBAPIConnection, path: str, node: str) -> DBAPIConnection:
    """The connection, closed unless its ``search_path`` is `path`. Raises ConfigError."""
    try:
        (found,) = ask(connection, "SELECT current_setting('search_path')")
        connection.rollback()
        check_search_path(path, str(found), node)
    except BaseException:
        connection.close()
        raise
    return connection


if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine

    class RoutedEngine(Engine):
        """An engine with a Router, for type checkers; at run time it is SQLAlchemy's Engine."""

        router: Router
        pool: RoutingPool  # pyright: ignore[reportIncompatibleVariableOverride]

else:
    RoutedEngine = Engine


def router_of(engine: "Engine | AsyncEngine") -> Router:
    """The Router of an engine, however it was made; also of one with execution options.

    Raises:
        ConfigError: the engine is not routed.
    """
    if not isinstance(engine.pool, RoutingPool):
        raise ConfigError(f'{engine!r} is not routed: make it with plugins=["router"]')
    return engine.pool.router


def create_engine(url: str | URL | Config, replicas: object = (), **options: Any) -> RoutedEngine:
    """A SQLAlchemy engine whose reads go to replicas and whose writes go to the primary.

    Sugar over ``sqlalchemy.create_engine(url, plugins=["router"], replicas=…, **options)``.

    Args:
        url: the primary's, such as ``postgresql+psycopg://user:password@host/dbname``. Without a
            driver, psycopg is taken. Or a whole `Config`; options beside it win.
        replicas: URLs, ``host:port`` texts, or mappings of what differs from the primary.
        **options: the options of `router.config.Config` and those of SQLAlchemy's function.

    Raises:
        ConfigError: an option is unknown or malformed; names it and the cure.
    """
    parsed, options = engine_options(url, replicas, options)
    engine = sqlalchemy.create_engine(parsed, **options)
    return cast("RoutedEngine", engine)


def engine_options(
    url: str | URL | Config, replicas: object, options: dict[str, Any]
) -> tuple[URL, dict[str, Any]]:
    """What SQLAlchemy's own functions take: the `url` with a driver; the `options` with our
    plugin, and with the `replicas`. Raises ConfigError: an option looks like a misspelt one of
    ours."""
    parsed = url_of(url) if isinstance(url, Config) else with_driver(url)
    for key in options:
        close = did_you_mean(key, ("replicas", *OPTIONS))
        if "did you mean" in close and key not in OPTIONS and not _sqlalchemy_takes(key, parsed):
            raise ConfigError(f"unknown option {key!r}{close}")
    # Where the URL or the options name our plugin already, it would be there twice.
    if parsed.query.get("plugin") in ("router", ("router",)):
        parsed = parsed.difference_update_query(["plugin"])
    others = [name for name in options.get("plugins", ()) if name != "router"]
    options = {**options, "plugins": [*others, "router"]}
    if replicas or not isinstance(url, Config):
        options["replicas"] = replicas
    if isinstance(url, Config):
        options[CONFIG] = url
    return parsed, options


def url_of(config: Config) -> URL:
    """The URL of `config`'s primary, with psycopg as its driver where none is named."""
    primary = config.primary
    return _url_for(URL.create(f"postgresql+{primary.driver or 'psycopg'}"), primary)


_CREATE_ENGINE = frozenset({
    "connect_args", "creator", "echo_pool", "enable_from_linting", "future", "max_overflow",
    "module", "plugins", "pool", "poolclass", "query_cache_size",
})  # fmt: skip
"""What ``sqlalchemy.create_engine`` takes beside the dialect's, the engine's and ``pool_…``."""


def _sqlalchemy_takes(key: str, url: URL) -> bool:
    accepted = get_cls_kwargs(url.get_dialect()) | get_cls_kwargs(Engine)
    return key in accepted or key in _CREATE_ENGINE or key.startswith("pool_")


def with_driver(url: str | URL) -> URL:
    """`url` with psycopg as its driver where it names none, ``postgres://`` accepted as well."""
    hosts = one_host_each(url) if isinstance(url, str) else []
    if len(hosts) > 1:
        # As SQLAlchemy writes several hosts: its own parser knows one port before the path.
        each = [make_url(host) for host in hosts]
        query = {
            "host": ",".join(u.host or "" for u in each),
            "port": ",".join(str(u.port or 5432) for u in each),
        }
        url = each[0]._replace(host=None, port=None).update_query_dict(query)
    parsed = make_url(url)
    dialect, _, driver = parsed.drivername.partition("+")
    if dialect in ("postgres", "postgresql"):
        parsed = parsed.set(drivername=f"postgresql+{driver or 'psycopg'}")
    return parsed
