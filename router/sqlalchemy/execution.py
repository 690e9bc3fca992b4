"""Patches an engine's dialect and its execution context, where each statement is seen.

The execution context picks the node when it makes its cursor, so SQLAlchemy works on the real
driver cursor and fetching rows costs nothing extra.
"""

from collections.abc import Callable
from functools import cache
from typing import Any, cast

from sqlalchemy.engine import ExecutionContext
from sqlalchemy.engine.default import DefaultDialect, DefaultExecutionContext
from sqlalchemy.engine.interfaces import Dialect

from router.checkout.cursor import RoutedCursor
from router.checkout.retry import failed_fast_read, recover
from router.checkout.route import Route, timed
from router.checkout.text import text_of
from router.rules.context import RoutingContext
from router.rules.decide import READ, SESSION
from router.rules.decision import Reason
from router.sql.intent import Kind
from router.sqlalchemy.checkout import EngineCheckout, RoutedConnection
from router.sqlalchemy.drivers import driver_of
from router.sqlalchemy.node_connection import DbapiConnection
from router.sqlalchemy.raw import RoutedDBAPIConnection

OPTION = "router"
"""The execution option by which a caller asks for "primary" or "replica"; or for "session", a
server session of its own on the primary, past a PgBouncer."""

SCHEMAS = "schema_translate_map"
"""SQLAlchemy's execution option by which a statement is sent with other schemas than it names."""

TRANSACTION = Reason.TRANSACTION


class ListenersCursor(RoutedCursor[DbapiConnection]):
    """The cursor of a statement that a listener may execute itself, routed when that is done."""

    @property
    def connection(self) -> Any:
        return self._connection if self._real is None else self._real.connection


class ByListener:
    """Stands in the place of a checkout, and of its connection, where a listener may execute.

    SQLAlchemy leaves `RoutedDialect.do_execute` out when a ``do_execute`` listener says it has
    executed the statement: then nobody but its cursor can see that a write is sent."""

    stream: bool = False

    def __init__(self, root: Any, options: Any, connection: RoutedConnection) -> None:
        # Not the execution context: in a circle with its cursor, only the garbage collector
        # would give back the connection that the context keeps.
        self._root = root
        self._options = options
        self._connection = connection

    def cursor(self, *args: Any, **kwargs: Any) -> Any:
        def make(held: DbapiConnection) -> Any:
            return held.dbapi.cursor(*args, **kwargs)

        return ListenersCursor(cast(Any, self), self._connection.dbapi_connection, make)

    def route(
        self, sql: str | None, *, many: bool = False, parameters: Any = None, **_: Any
    ) -> Route[DbapiConnection]:
        """As the checkout routes `sql` with its `parameters`, of which with `many` there are
        several sets, and with what the statement's options say."""
        routed, root = self._connection.routed, self._root
        route = routed.route(
            sql,
            explicit=not routed.autobegun,
            force=self._options.get(OPTION),
            stream=self.stream,
            many=many,
            parameters=parameters,
        )
        if root._echo:
            root._log_info("%s: %s", route.held.node.name, route.decision.reason)
        return route

    def fast_read_on_primary(self, sql: str) -> None:
        """None for any `sql`: a fast read does not ask for the statement's options."""

    def __getattr__(self, key: str) -> Any:
        return getattr(self._connection.routed, key)


class RoutedContext:
    """Mixed into the dialect's execution context: chooses the node, then makes the cursor."""

    router_route: Route[DbapiConnection] | None = None
    # Where the statement is one more read in the primary's transaction: the checkout, the
    # connection it runs on, and the routing context whose read it is.
    router_inside: tuple[EngineCheckout, DbapiConnection, RoutingContext] | None = None
    # SQLAlchemy does not set it where it executes a bare default, such as a sequence.
    # Of exec_driver_sql() it is whatever the driver takes.
    unicode_statement: Any = None
    # Whether the dialect makes cursors by SQLAlchemy's own two methods, so that we may call the
    # right one of them directly.
    router_chooses: bool

    def create_cursor(self) -> Any:
        """Route the statement, then let the dialect make its cursor on the chosen connection."""
        this: Any = self
        connection = this._dbapi_connection
        # A cursor() that somebody has set on this one connection makes the cursor.
        if connection.__class__ is not RoutedConnection or "cursor" in connection.__dict__:
            return super().create_cursor()  # type: ignore[misc]
        routed: EngineCheckout = connection.routed
        root, dialect, options = this.root_connection, this.dialect, this.execution_options
        if root._transaction is None and not root._Connection__in_begin:
            # The cursor is made before autobegin: where there is no transaction yet, the user has
            # asked for none. A ``begin`` listener's own statement comes as early; it says nothing.
            routed.autobegun = True
        if _executing(dialect):
            this._dbapi_connection = by = ByListener(root, options, connection)
            cursor = super().create_cursor()  # type: ignore[misc]
            by.stream = this._is_server_side
            return cursor
        # As SQLAlchemy chooses; all drivers we support have such cursors.
        stream = options.get("stream_results", False) or (
            dialect.server_side_cursors and this._use_server_side_cursor()
        )
        force, sql, context = options.get(OPTION), this.unicode_statement, None
        if _unfinished(sql, options):
            sql = self.router_text()
        if force is None and not stream and sql is not None:
            context = routed.fast_read_on_primary(sql)
        held: Any
        if context is not None:
            held, reason = routed.primary, TRANSACTION
            self.router_inside = routed, held, context
        else:
            self.router_route = route = routed.route(
                sql, explicit=not routed.autobegun, force=force, stream=stream, parameters=self
            )
            held, reason = route.held, route.decision.reason
        this._dbapi_connection = held.fairy
        if root._echo:
            root._log_info("%s: %s", held.node.name, reason)
        if not self.router_chooses:
            return super().create_cursor()  # type: ignore[misc]
        this._is_server_side = bool(stream)
        return this.create_server_side_cursor() if stream else held.dbapi.cursor()

    def router_sets(self) -> list[Any]:
        """The sets of parameters it comes with, as far as they are known before its cursor is
        made: by name as they were given, or as the driver gets them."""
        this: Any = self
        of = "parameters" if this.compiled is None else "compiled_parameters"
        sets: list[Any] = getattr(this, of, [])  # not known where a default is executed
        names = getattr(this.compiled, "positiontup", None)
        if names is None:
            return sets
        return [[each.get(name) for name in names] for each in sets]

    def router_text(self) -> str | None:
        """The statement as it is sent: the text of what only a driver takes, and the schemas of a
        map in their places. SQLAlchemy puts them there itself once it has the cursor: until then
        the text has placeholders that the grammar does not know, and is every tenant's."""
        this: Any = self
        sql, compiled = text_of(self.unicode_statement), this.compiled
        if sql is None or compiled is None or not compiled.schema_translate_map:
            return sql
        render = compiled.preparer._render_schema_translates
        return str(render(sql, this.execution_options[SCHEMAS]))

    def on_another_node(self, held: DbapiConnection) -> Any:
        """Put a cursor on `held`, another node, in place; the first one delivered nothing."""
        this: Any = self
        this._dbapi_connection = held.fairy
        this.cursor = super().create_cursor()  # type: ignore[misc]
        this.pre_exec()  # asyncpg's dialect tells the cursor there how old its schema may be
        return this.cursor


def _watched(
    route: Route[DbapiConnection], execute: Callable[[Any, str, Any, Any], None]
) -> Callable[[Any, str, Any, Any], None]:
    """`execute` where somebody wants to know how long it took, or what it was sent with."""
    commented = route.checkout.router.config.sql_comment

    def run(cursor: Any, statement: str, parameters: Any, context: Any) -> None:
        text = (
            statement + route.comment() if commented and isinstance(statement, str) else statement
        )
        execute(cursor, text, parameters, context)

    return timed(route, run)


def _elsewhere(execute: Any, *arguments: Any) -> Callable[[DbapiConnection], None]:
    """`execute` on another node what failed on the first: `arguments` end in the context."""

    def attempt(held: DbapiConnection) -> None:
        execute(arguments[-1].on_another_node(held), *arguments)

    return attempt


def _stays(route: Route[DbapiConnection], statement: str) -> bool:
    """Whether `statement`, which took the place of the one routed, may run on the same node, and
    leaves there no more than that."""
    sql = text_of(statement)
    if sql is None:
        return False
    intent = route.checkout.router.classifier(sql)
    if intent.binds or intent.kind is SESSION or intent.kind is Kind.TRANSACTION:
        return False
    return route.decision.on_primary and (route.intent.writes or not intent.writes)


def _again(
    route: Route[DbapiConnection], cursor: Any, statement: str, parameters: Any, context: Any
) -> Any:
    """Route a statement once more, and give the cursor it is to be executed with."""
    checkout, before, sql = route.checkout, route.held, text_of(statement)
    again = checkout.route(
        sql,
        explicit=not checkout.autobegun,
        force=context.execution_options.get(OPTION),
        stream=context._is_server_side,
        many=route.asked.many,
        parameters=parameters,
    )
    route.sql, route.intent, route.context = sql or "", again.intent, again.context
    route.held, route.decision, route.fresh = again.held, again.decision, again.fresh
    if again.held is before:
        return cursor
    if before is checkout.primary or before is checkout.replica:
        cursor.close()  # not on a connection that was given back: it may be another's by now
    return context.on_another_node(again.held)


def _unfinished(sql: Any, options: Any) -> bool:
    """Whether `sql` is not yet the text that is sent with these execution `options`."""
    return SCHEMAS in options or sql.__class__ is not str


def _executing(dialect: Any) -> bool:
    """Whether some listener may execute statements in the place of `dialect`."""
    if not dialect._has_events:
        return False
    listeners = dialect.dispatch
    return bool(listeners.do_execute or listeners.do_executemany or listeners.do_execute_no_params)


def _above(dialect: "RoutedDialect") -> Any:
    """The dialect's own class, which comes behind `RoutedDialect`; typed as its users see it."""
    return super(RoutedDialect, dialect)


def _mode(name: str, key: str) -> tuple[Any, Any]:
    """A dialect's ``set_…`` and ``get_…`` of a transaction mode: a facade remembers the mode, on
    a real connection the dialect's own method sets it."""

    def set_mode(self: "RoutedDialect", connection: Any, value: bool) -> None:
        if isinstance(connection, RoutedDBAPIConnection):
            connection.routed.characterise(**{key: bool(value) or None})
        else:
            getattr(_above(self), f"set_{name}")(connection, value)

    def get_mode(self: "RoutedDialect", connection: Any) -> Any:
        if isinstance(connection, RoutedDBAPIConnection):
            return bool(getattr(connection.routed.characteristics, key))
        return getattr(_above(self), f"get_{name}")(connection)

    return set_mode, get_mode


class RoutedDialect(DefaultDialect):
    """Mixed into the engine's dialect: watches each statement, and answers for the facade."""

    __slots__ = ()  # keeps the object layout, so that a dialect made before can take this class

    # The methods of the dialect's own class; `routed_dialect` sets them.
    _above_execute: Callable[..., None]
    _above_executemany: Callable[..., None]
    _above_execute_no_params: Callable[..., None]
    # Whether `_above_execute` is SQLAlchemy's own, which does no more than cursor.execute().
    _sends: bool

    def do_execute(
        self,
        cursor: Any,
        statement: str,
        parameters: Any,
        context: Any = None,
        by: Callable[[Any, str, Any, Any], None] | None = None,
    ) -> None:
        """Execute, and heal or retry where the rules allow it.

        Args:
            cursor: of the node chosen for it.
            statement: its text.
            parameters: as the driver takes them.
            context: SQLAlchemy's, or None.
            by: what sends it, where that is not the dialect's own `do_execute`.
        """
        if by is None and not self._sends:
            by = self._above_execute
        inside = getattr(context, "router_inside", None)
        if inside is None:
            route = getattr(context, "router_route", None)
            if route is None:
                (by or self._above_execute)(cursor, statement, parameters, context)
            else:
                self._execute_routed(route, cursor, statement, parameters, context, by)
            return
        routed, held, reader = inside
        if held is not routed.primary or (
            statement is not context.unicode_statement
            and _rewritten(context.unicode_statement, statement)
        ):
            # A listener changed it, and may have made a write of it; or it ended the transaction.
            context.router_inside = None
            route = routed.route(statement, explicit=not routed.autobegun, parameters=parameters)
            context.router_route = route
            if route.held is not held:
                cursor = context.on_another_node(route.held)
            self._execute_routed(route, cursor, statement, parameters, context, by)
            return
        try:
            if by is None:
                cursor.execute(statement, parameters)
            else:
                by(cursor, statement, parameters, context)
        except BaseException as error:
            failed_fast_read(routed, held, error, cursor)
            raise
        if not reader.root:
            routed.router.pinning.read(reader, held.node)

    def _execute_routed(
        self, route: Route[DbapiConnection], cursor: Any, statement: str, parameters: Any,
        context: Any, by: Callable[[Any, str, Any, Any], None] | None,
    ) -> None:  # fmt: skip
        """Execute where the rules have sent it; a retry is theirs too. Arguments as above."""
        if (held := route.held) is not (checkout := route.checkout).last or (
            held is not checkout.replica and held is not checkout.primary
        ):
            # A listener's own statement came between, and went elsewhere or had this one's
            # connection given back.
            cursor = _again(route, cursor, statement, parameters, context)
        elif (
            statement is not route.sql
            and _rewritten(route.sql, statement)
            and not _stays(route, statement)
        ):
            # A listener changed the statement after it was routed, or it is a default's own one.
            cursor = _again(route, cursor, statement, parameters, context)
        if checkout.router.instrumented:
            by = _watched(route, by or self._above_execute)
        route.begin()
        try:
            if by is None:
                cursor.execute(statement, parameters)
            else:
                by(cursor, statement, parameters, context)
        except Exception as error:  # noqa: BLE001 - raised again unless the rules allow more
            send = by or self._above_execute
            recover(route, error, cursor, _elsewhere(send, statement, parameters, context))
        except BaseException:
            route.held.interrupted(route.intent)
            raise
        if route.intent.kind is not READ or not route.context.root:
            route.done(parameters)

    def do_executemany(
        self, cursor: Any, statement: str, parameters: Any, context: Any = None
    ) -> None:
        """As `do_execute`, for several sets of parameters."""
        run = self._above_executemany
        route: Route[DbapiConnection] | None = getattr(context, "router_route", None)
        if route is not None:
            route.asked = route.asked._replace(many=True)
        RoutedDialect.do_execute(self, cursor, statement, parameters, context, run)

    def do_execute_no_params(self, cursor: Any, statement: str, context: Any = None) -> None:
        """As `do_execute`, without parameters."""

        def call(cursor: Any, statement: str, _: Any, context: Any) -> None:
            self._above_execute_no_params(cursor, statement, context)

        RoutedDialect.do_execute(self, cursor, statement, None, context, call)

    def is_disconnect(self, e: Any, connection: Any, cursor: Any) -> bool:
        """As the dialect answers for `connection`, asked about the node's that really failed."""
        if isinstance(connection, RoutedConnection):
            held = connection.routed.last
            if held is None:
                return False
            held.broken = held.broken or _above(self).is_disconnect(e, held.dbapi, cursor)
            return held.broken
        return bool(_above(self).is_disconnect(e, connection, cursor))

    def do_ping(self, dbapi_connection: Any) -> bool:
        """Ask a pooled `dbapi_connection` whether it lives, and leave no transaction behind: in
        the one that pg8000 begins for it, the isolation level of the next would have no effect."""
        facade = isinstance(dbapi_connection, RoutedDBAPIConnection | RoutedConnection)
        begins = not facade and not driver_of(self).in_transaction(dbapi_connection)
        lives = bool(_above(self).do_ping(dbapi_connection))
        if begins:
            dbapi_connection.rollback()  # sends nothing where the ping began none
        return lives

    def set_isolation_level(self, dbapi_connection: Any, level: str) -> None:
        if isinstance(dbapi_connection, RoutedDBAPIConnection):
            dbapi_connection.routed.characterise(isolation=level)
        else:
            _above(self).set_isolation_level(dbapi_connection, level)

    def reset_isolation_level(self, dbapi_conn: Any) -> None:
        if isinstance(dbapi_conn, RoutedDBAPIConnection):
            dbapi_conn.routed.characterise(isolation=None)
        else:
            _above(self).reset_isolation_level(dbapi_conn)

    def get_isolation_level(self, dbapi_connection: Any) -> Any:
        ask = _above(self).get_isolation_level
        if isinstance(dbapi_connection, RoutedDBAPIConnection):
            return dbapi_connection.routed.peek(ask)
        return ask(dbapi_connection)

    set_readonly: Any
    get_readonly: Any
    set_deferrable: Any
    get_deferrable: Any
    set_readonly, get_readonly = _mode("readonly", "read_only")
    set_deferrable, get_deferrable = _mode("deferrable", "deferrable")

    def detect_autocommit_setting(self, dbapi_conn: Any) -> bool:
        if isinstance(dbapi_conn, RoutedDBAPIConnection | RoutedConnection):
            dbapi_conn = dbapi_conn.routed
        if isinstance(dbapi_conn, EngineCheckout):
            return dbapi_conn.isolation == "AUTOCOMMIT"
        return bool(_above(self).detect_autocommit_setting(dbapi_conn))

    def _twophase_idle_check(self, dbapi_conn: Any) -> Any:
        if isinstance(dbapi_conn, RoutedDBAPIConnection):
            dbapi_conn = dbapi_conn.routed.bind_primary().dbapi
        return _above(self)._twophase_idle_check(dbapi_conn)


@cache
def routed_dialect(dialect: type[Dialect]) -> type[Dialect]:
    """The subclass of `dialect` that routes; ``isinstance`` checks keep working."""
    above: Any = dialect
    members = {
        "supports_statement_cache": dialect.supports_statement_cache,
        "__slots__": (),
        "_sends": above.do_execute is DefaultDialect.do_execute,
        "_above_execute": above.do_execute,
        "_above_executemany": above.do_executemany,
        "_above_execute_no_params": above.do_execute_no_params,
    }
    return type(f"Routed{dialect.__name__}", (RoutedDialect, dialect), members)


@cache
def routed_context(context: type[ExecutionContext]) -> type[ExecutionContext]:
    """The subclass of the dialect's execution context that routes."""
    above: Any = context
    own = DefaultExecutionContext
    members = {
        "router_chooses": above.create_cursor is own.create_cursor
        and above.create_default_cursor is own.create_default_cursor
    }
    return type(f"Routed{context.__name__}", (RoutedContext, context), members)


def _rewritten(before: str | None, statement: Any) -> bool:
    """Whether `statement` is another statement than `before`, and not the same with one comment in
    front or behind, as tracers add it."""
    after = text_of(statement) or ""
    if before == after:
        return False
    if before and after.startswith(before):
        extra = after[len(before) :].strip()
    elif before and after.endswith(before):
        extra = after[: -len(before)].strip()
    else:
        return True
    end = len(extra) - 2
    return not (extra.startswith("/*") and extra.find("*/") == end and "/*" not in extra[2:])
