"""Flask: engines and a session from ``app.config``, and pins in a cookie the app's key signs.

Where Flask-SQLAlchemy or Flask-SQLAlchemy-Lite makes the engines, with ``plugins=["router"]``,
it also makes the session, and this extension adds the pins and the commands.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import click
from flask import Flask, Response, current_app, request
from flask.cli import AppGroup
from flask.globals import app_ctx
from sqlalchemy import Engine, engine_from_config
from sqlalchemy.exc import ArgumentError
from sqlalchemy.orm import Session, scoped_session, sessionmaker

from router import create_engine
from router.cluster import router as core
from router.config.urls import url_parts
from router.doctor.diagnosis import doctor
from router.errors import ConfigError, RouterError
from router.explain import explain
from router.messages import did_you_mean, kind_of, masked
from router.pins.carrier import PinCarrier
from router.pins.options import PinOptions, derived, pin_options, safe_methods
from router.rules.context import current_context
from router.status.page import Guard, Page
from router.status.report import status
from router.wsgi import PinMiddleware, refuse_coroutines, respond

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication

NAME = "router"
"""Key in ``app.extensions``."""

ENDPOINT = "router_status"
"""Endpoint of the status page, for ``url_for``."""

DEFAULT = "default"
"""The name of the app's own engine, which is no bind."""

_ENGINE_KEYS = ("DATABASE_URI", "ENGINE_OPTIONS", "BINDS")
_THEIRS = "sqlalchemy"
_OTHERS = re.compile(r"(?!postgres)[\w+]+://")


class Router:
    """The extension. One may serve several apps; what belongs to an app is in its ``extensions``.

    Attributes:
        session: a session for each app context, removed when that ends.
    """

    def __init__(
        self, app: Flask | None = None, *, session_options: Mapping[str, Any] | None = None
    ) -> None:
        """Prepare, and `init_app` for a configured `app`. `session_options` are for SQLAlchemy's
        ``sessionmaker``; names of binds may stand in its ``binds`` in place of engines.

        Raises:
            ConfigError: as `init_app`.
        """
        self._session_options: dict[str, Any] = dict(session_options or {})
        self.session: scoped_session[Session] = scoped_session(
            cast("sessionmaker[Session]", self._new_session), scopefunc=_scope
        )
        if app is not None:
            self.init_app(app)

    def init_app(self, app: Flask) -> None:
        """Serve `app` as ``app.config`` says now; docs/reference/flask.md has the keys. Nothing is
        connected to before the first statement.

        Raises:
            ConfigError: a key is missing, unknown or malformed; names it and the cure.
        """
        if NAME in app.extensions:
            raise ConfigError(f"Router: {app} has one already: use app.extensions[{NAME!r}].owner")
        pins = _pin_options(app)
        safe = _safe_methods(app, pins)
        inner = app.wsgi_app if safe is None else _unsafe_on_primary(app.wsgi_app, safe)
        middleware = None if pins is None else PinMiddleware(inner, **pins)
        mount = _status_page(app, lambda: self.routers)
        engines = _engines(app)
        makes: sessionmaker[Session] | None = None
        if engines is not None:
            makes = sessionmaker(**_session_options(self._session_options, engines))
        # Nothing below can fail: a mistake in the configuration leaves the app as it was.
        if middleware is not None:
            middleware.pinning.testing = lambda: app.testing
            app.wsgi_app = middleware  # type: ignore[method-assign]
        carrier = None if middleware is None else middleware.carrier
        app.extensions[NAME] = State(self, engines, makes, carrier)
        app.teardown_appcontext(self._teardown)
        app.cli.add_command(commands)
        mount()

    @property
    def engines(self) -> Mapping[str, Engine]:
        """The current app's engines by bind, the app's own as "default".

        Raises:
            ConfigError: Flask-SQLAlchemy came to the app after this extension.
            RuntimeError: there is no app context.
        """
        return {name: e for name, e in self._all_engines().items() if isinstance(e, Engine)}

    @property
    def engine(self) -> Engine:
        """The current app's engine "default"; raises as `engines`, and KeyError without one."""
        return self.engines[DEFAULT]

    @property
    def routers(self) -> Mapping[str, core.Router]:
        """The Routers of the current app's routed engines, by bind; raises as `engines`."""
        return _routers(self._all_engines())

    @property
    def carrier(self) -> PinCarrier:
        """Carries pins of the current app to jobs, and back.

        Raises:
            ConfigError: ``ROUTER_PINS`` is False.
            RuntimeError: there is no app context.
        """
        carrier = self._state().carrier
        if carrier is None:
            raise ConfigError("ROUTER_PINS: it is False, so nothing carries pins: leave it out")
        return carrier

    def _state(self) -> "State":
        state = current_app.extensions.get(NAME)
        if not isinstance(state, State) or state.owner is not self:
            raise ConfigError(f"Router: it does not serve {current_app.name!r}: call init_app")
        return state

    def _all_engines(self) -> Mapping[str, Any]:
        engines = self._state().engines
        if engines is None:
            return _their_engines(current_app)
        if _THEIRS in current_app.extensions:
            raise ConfigError(
                "Router: Flask-SQLAlchemy came to the app later, so both have made engines: call "
                "its init_app first"
            )
        return engines

    def _new_session(self, **options: Any) -> Session:
        makes = self._state().makes
        if makes is None:
            raise ConfigError("session: Flask-SQLAlchemy makes the engines: use its session")
        return makes(**options)

    def _teardown(self, error: BaseException | None) -> None:
        self.session.remove()


@dataclass(frozen=True, slots=True)
class State:
    """What ``app.extensions["router"]`` holds.

    Attributes:
        owner: the extension.
        engines: by bind; None where Flask-SQLAlchemy makes them.
        makes: the sessions; None likewise.
        carrier: carries the pins; None without ``ROUTER_PINS``.
    """

    owner: Router
    engines: Mapping[str, Engine] | None
    makes: "sessionmaker[Session] | None"
    carrier: PinCarrier | None


def _scope() -> int:
    return id(app_ctx._get_current_object())  # type: ignore[attr-defined]


# -- configuration -------------------------------------------------------------------------------


def _engines(app: Flask) -> dict[str, Engine] | None:
    """The engines the configuration asks for; None where Flask-SQLAlchemy makes them."""
    if _THEIRS in app.extensions:
        _refuse_ours(app)
        return None
    echo = app.config.get("SQLALCHEMY_ECHO", False)
    return {name: _made(name, {"echo": echo, **given}) for name, given in _asked(app).items()}


def _refuse_ours(app: Flask) -> None:
    """Raise ConfigError where Flask-SQLAlchemy makes the engines, and the configuration asks for
    ours too, or none of its engines is routed."""
    for key in ("REPLICAS", *_ENGINE_KEYS):
        if app.config.get(f"ROUTER_{key}") is not None:
            raise ConfigError(
                f"ROUTER_{key}: Flask-SQLAlchemy makes the engines of this app: put "
                '{"plugins": ["router"], "replicas": [...]} into its engine options'
            )
    with app.app_context():
        if not _routers(_their_engines(app)):
            raise ConfigError(
                "SQLALCHEMY_ENGINE_OPTIONS: no engine of Flask-SQLAlchemy is routed: add "
                '{"plugins": ["router"], "replicas": [...]}'
            )


def _asked(app: Flask) -> dict[str, dict[str, Any]]:
    """The options of each engine, by bind."""
    config = app.config
    uri, options, binds = (
        config.get(f"SQLALCHEMY_{key}") if (own := config.get(f"ROUTER_{key}")) is None else own
        for key in _ENGINE_KEYS
    )
    for key, given in (("ENGINE_OPTIONS", options), ("BINDS", binds)):
        if not isinstance(given or {}, Mapping):
            raise ConfigError(f"ROUTER_{key}: it is {kind_of(given)}: give a mapping")
    asked = {name: _bind(name, given) for name, given in (binds or {}).items()}
    if uri is not None:
        asked[DEFAULT] = {**(options or {}), "url": uri}
    if config.get("ROUTER_REPLICAS") is not None:
        if DEFAULT not in asked:
            raise ConfigError("ROUTER_REPLICAS: of which primary? Set ROUTER_DATABASE_URI")
        asked[DEFAULT]["replicas"] = config["ROUTER_REPLICAS"]
    if not asked:
        raise ConfigError(
            "ROUTER_DATABASE_URI: it is missing, as is SQLALCHEMY_DATABASE_URI: give the "
            "primary's URL; where Flask-SQLAlchemy makes the engines call its init_app first"
        )
    return asked


def _made(name: str, given: dict[str, Any]) -> Engine:
    """The engine of the bind `name`, of another database than PostgreSQL if need be. Errors hold
    no password."""
    try:
        plain = name != DEFAULT and "replicas" not in given
        if plain and _OTHERS.match(str(given["url"])):
            return engine_from_config(given, prefix="")
        # Texts become numbers, as for Flask-SQLAlchemy, which goes through engine_from_config().
        return create_engine(_coerce_config=True, **given)
    except ConfigError as error:
        raise ConfigError(f"engine {name!r}: {error}") from None
    except ArgumentError as error:  # it may repeat the URL
        raise ConfigError(f"engine {name!r}: {masked(str(error))}") from None
    except ValueError as error:  # of make_url(), about a port
        if isinstance(given["url"], str):
            url_parts(given["url"], f"engine {name!r}")  # says it without the password
        raise ConfigError(f"engine {name!r}: {masked(str(error))}") from None


def _bind(name: str, given: object) -> dict[str, Any]:
    options = dict(given) if isinstance(given, Mapping) else {"url": given}
    if options.get("url") is None:
        raise ConfigError(f"ROUTER_BINDS[{name!r}]: no url: add it")
    return options


def _session_options(given: Mapping[str, Any], engines: Mapping[str, Engine]) -> dict[str, Any]:
    binds = dict(given.get("binds") or {})
    for entity, bind in binds.items():
        if isinstance(bind, str):
            if bind not in engines:
                raise ConfigError(
                    f"session_options: no bind is called {bind!r}{did_you_mean(bind, engines)}"
                )
            binds[entity] = engines[bind]
    return {"bind": engines.get(DEFAULT), **given, "binds": binds}


def _pin_options(app: Flask) -> PinOptions | None:
    """The middleware's options by ``ROUTER_PINS``, else as Flask's session cookie has them."""
    config = app.config
    given = config.get("ROUTER_PINS", True)
    if given is False:
        return None
    cookie = {
        "secure": bool(config["SESSION_COOKIE_SECURE"]),
        "samesite": (config["SESSION_COOKIE_SAMESITE"] or "Lax").title(),
        "path": config["SESSION_COOKIE_PATH"] or config["APPLICATION_ROOT"],
        "domain": config["SESSION_COOKIE_DOMAIN"] or None,
        "partitioned": bool(config.get("SESSION_COOKIE_PARTITIONED")),  # since Flask 3.1
    }

    def secrets() -> list[str]:
        if not app.secret_key:
            raise ConfigError(
                "SECRET_KEY: it is missing, and signs the cookie that carries pins: set it before "
                "init_app, or ROUTER_PINS = False"
            )
        keys = [app.secret_key, *(config.get("SECRET_KEY_FALLBACKS") or ())]  # newest first
        return derived(keys, b"pg-router.flask")

    return pin_options(given, cookie, secrets)


def _safe_methods(app: Flask, pins: PinOptions | None) -> frozenset[str] | None:
    given: Iterable[str] | None = app.config.get("ROUTER_SAFE_METHODS")
    if given is None:
        return None
    if pins is None:
        raise ConfigError(
            "ROUTER_SAFE_METHODS: it needs the context of ROUTER_PINS, which is False: leave one "
            "of them out"
        )
    return safe_methods(given)


def _unsafe_on_primary(app: "WSGIApplication", safe: frozenset[str]) -> "WSGIApplication":
    """`app`, whose requests by other methods than the `safe` ones run wholly on the primary."""

    def call(environ: dict[str, Any], start_response: "StartResponse") -> Iterable[bytes]:
        if environ["REQUEST_METHOD"] not in safe:
            current_context().force = "primary"  # the middleware made it for this request alone
        return app(environ, start_response)

    return call


def _status_page(
    app: Flask, routers: Callable[[], Mapping[str, core.Router]]
) -> Callable[[], None]:
    """A function that mounts the status page on `app`, if the configuration asks for one."""
    config = app.config
    prefix, guard = config.get("ROUTER_STATUS_URL_PREFIX"), config.get("ROUTER_STATUS_GUARD")
    if prefix is None:
        return lambda: None
    if not isinstance(prefix, str) or not prefix.startswith("/") or not prefix.strip("/"):
        raise ConfigError(f"ROUTER_STATUS_URL_PREFIX: {prefix!r} is no path: say '/router'")
    token: object = config.get("ROUTER_STATUS_TOKEN")
    if not isinstance(token, str | None):
        raise ConfigError(f"ROUTER_STATUS_TOKEN: it is {kind_of(token)}: give a text")
    if guard is not None and not callable(guard):
        raise ConfigError(f"ROUTER_STATUS_GUARD: {guard!r} cannot be called: give a function")
    prefix = prefix.rstrip("/")
    try:
        page = Page(
            routers,
            guard=cast("Guard | None", guard),
            token=token,
            public_health=bool(config.get("ROUTER_STATUS_PUBLIC_HEALTH", False)),
        )
        refuse_coroutines(page)
    except ConfigError as error:
        option, _, mistake = str(error).partition(": ")
        raise ConfigError(f"ROUTER_STATUS_{option.upper()}: {mistake}") from None

    def view(rest: str = "") -> Response:
        answer = respond(page, request.environ, f"/{rest}")
        return Response(answer.body, answer.code, answer.headers)

    def mount() -> None:
        # A page with buttons would need more: other methods than GET and HEAD are refused.
        app.add_url_rule(f"{prefix}/", ENDPOINT, view)
        app.add_url_rule(f"{prefix}/<path:rest>", ENDPOINT, view)
        with app.app_context():
            page.routers()  # the lag is kept from now on

    return mount


def _their_engines(app: Flask) -> dict[str, Any]:
    """The engines of Flask-SQLAlchemy, or of Flask-SQLAlchemy-Lite, asynchronous ones too."""
    extension = app.extensions[_THEIRS]
    found = {DEFAULT if name is None else name: e for name, e in extension.engines.items()}
    for name, engine in getattr(extension, "async_engines", {}).items():
        found[f"{name} (async)"] = engine
    return found


def _routers(engines: Mapping[str, Any]) -> dict[str, core.Router]:
    found = {
        name: getattr(getattr(engine, "sync_engine", engine), "router", None)
        for name, engine in engines.items()
    }
    ordered = sorted(found.items(), key=lambda item: item[0] != DEFAULT)
    return {name: r for name, r in ordered if isinstance(r, core.Router)}


commands: AppGroup = AppGroup(NAME, help="Where reads and writes of this app go.")
"""The commands of ``flask router``."""


def _owned() -> Mapping[str, core.Router]:
    state: State = current_app.extensions[NAME]
    return state.owner.routers


@commands.command("status")
def _status() -> None:
    """Ask every node how it is. Exit status 1 where there is no primary."""
    writable = True
    for name, router in _owned().items():
        router.refresh()
        found = status(router)
        writable = writable and found.writable
        click.echo(f"{name}: {found}")
    if not writable:
        raise SystemExit(1)


@commands.command("doctor")
@click.option("--strict", is_flag=True, help="Let a warning count as an error.")
def _doctor(*, strict: bool) -> None:
    """Find what is wrong with servers and settings. Exit status 1 where there is an error."""
    failed = False
    for name, router in _owned().items():
        found = doctor(router)
        failed = found.failed(strict=strict) or failed
        click.echo(f"{name}: {found}")
    if failed:
        raise SystemExit(1)


@commands.command("explain")
@click.argument("sql")
@click.option("--bind", default=DEFAULT, show_default=True, help="Which of the app's engines.")
def _explain(sql: str, bind: str) -> None:
    """Say what SQL does and where it would go now. Nothing is sent.

    Exit status 1 where it could not run.
    """
    routers = _owned()
    if bind not in routers:
        raise click.UsageError(f"no routed engine is called {bind!r}{did_you_mean(bind, routers)}")
    try:
        told = explain(sql, routers[bind])
    except RouterError as error:
        raise click.ClickException(masked(str(error))) from None
    click.echo(told)
    if told.problem:
        raise SystemExit(1)
