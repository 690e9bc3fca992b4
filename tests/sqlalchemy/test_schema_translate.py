"""One schema for each tenant, by `schema_translate_map`: judged is the text that is sent."""

from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from router import request_context
from tests.sqlalchemy.kit import EVERY_DOOR, EVERY_DRIVER, Routed

pytestmark = EVERY_DRIVER

A, B = "tenant_a", 'Tenant "B"'
"""The second has a name that must be quoted."""

PORT = sa.func.inet_server_port()


class Lowered(sa.TypeDecorator[str]):
    """A type that puts an expression around each value that ``IN`` compares with."""

    impl = sa.Text
    cache_ok = True

    def bind_expression(self, bindvalue: Any) -> Any:
        return sa.func.lower(bindvalue)


class Base(DeclarativeBase):
    """One metadata for tables whose schema is the tenant's, by a name or by none."""


class Order(Base):
    __tablename__ = "orders"
    __table_args__ = {"schema": "per_user"}  # noqa: RUF012 - as SQLAlchemy has it
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(Lowered)


class Report(Base):
    """A table with one tenant, a view that writes with the other; and it names no schema."""

    __tablename__ = "report"
    id: Mapped[int] = mapped_column(primary_key=True)


ORDERS: sa.Table = Order.__table__  # type: ignore[assignment]
REPORT: sa.Table = Report.__table__  # type: ignore[assignment]


def of(tenant: str) -> dict[str | None, str | None]:
    return {"per_user": tenant, None: tenant}


def quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


@pytest.fixture
def tenants(routed: Routed) -> Routed:
    """Two schemas with the same names in them, of which one is a view that writes."""
    for tenant in (A, B):
        schema = quoted(tenant)
        routed.execute_on_primary(
            f"CREATE SCHEMA {schema}",
            f"CREATE TABLE {schema}.orders (id serial PRIMARY KEY, name text NOT NULL)",
            f"INSERT INTO {schema}.orders (name) VALUES ('one'), ('two')",
        )
    routed.execute_on_primary(
        f"CREATE TABLE {quoted(A)}.report (id int PRIMARY KEY)",
        f"INSERT INTO {quoted(A)}.report VALUES (1)",
        "CREATE FUNCTION note() RETURNS int LANGUAGE sql AS "
        "$$INSERT INTO item (name) VALUES ('seen') RETURNING id$$",
        f"CREATE VIEW {quoted(B)}.report AS SELECT note() AS id",
    )
    routed.cluster.wait_caught_up()
    routed.engine = routed.another()  # which reads the catalog as it is now
    return routed


READS: dict[str, Callable[[], Any]] = {
    "core": lambda: sa.select(PORT).select_from(ORDERS).limit(1),
    "in": lambda: sa.select(PORT).where(ORDERS.c.id.in_([1, 2])).limit(1),
    "in_an_expression": lambda: sa.select(PORT).where(ORDERS.c.name.in_(["ONE", "b"])),
    "literal_execute": lambda: sa.select(PORT).where(
        ORDERS.c.id == sa.bindparam("id", 1, literal_execute=True)
    ),
    "join": lambda: (
        sa.select(PORT).select_from(ORDERS.join(ORDERS.alias("o"), sa.true())).limit(1)
    ),
    "orm": lambda: sa.select(PORT).select_from(Order).where(Order.id == 1),
    "text": lambda: sa.text("SELECT inet_server_port()"),
}


@pytest.mark.parametrize("tenant", [A, B])
@pytest.mark.parametrize("level", ["engine", "connection", "statement"])
def test_a_read_goes_to_a_replica(tenants: Routed, tenant: str, level: str) -> None:
    """Whoever gives the map, whatever the statement: it pins nothing, and its rows are the
    tenant's."""
    options: Any = {"schema_translate_map": of(tenant)}
    engine = tenants.engine
    if level == "engine":
        engine = engine.execution_options(**options)  # type: ignore[assignment]
    with request_context(), engine.connect() as connection:
        if level == "connection":
            connection = connection.execution_options(**options)
        for name, make in READS.items():
            statement = make()
            if level == "statement":
                statement = statement.execution_options(**options)
            assert tenants.name_of(connection.execute(statement).scalar_one()) == "replica", name
    assert tenants.engine.router.stats()["events"].get("healed", 0) == 0


@pytest.mark.doors(*EVERY_DOOR.args)
def test_of_a_session(tenants: Routed) -> None:
    """A Session's own reads, its identity map's and those it streams, stay off the primary."""
    options: Any = {"schema_translate_map": of(B)}
    with request_context(), Session(tenants.engine.execution_options(**options)) as session:
        assert tenants.name_of(session.scalars(READS["orm"]()).one()) == "replica"
        assert session.get_one(Order, 1).name == "one"
        streamed = session.scalars(READS["orm"]().execution_options(stream_results=True))
        assert tenants.name_of(streamed.one()) == "replica"
        assert [o.id for o in session.query(Order).where(Order.name.in_(["TWO"]))] == [2]
        assert tenants.served(session) == "replica"


@pytest.mark.doors(*EVERY_DOOR.args)
def test_two_tenants_share_no_verdict(tenants: Routed) -> None:
    """One compiled statement is a read for the tenant whose table it reads, and a write for the
    one with a view that writes, whoever comes first."""
    statement = sa.select(REPORT.c.id, PORT)

    def served(connection: Any, tenant: str) -> str:
        options: Any = {"schema_translate_map": of(tenant)}
        return tenants.name_of(connection.execute(statement, execution_options=options).one()[1])

    for tenant, role in [(A, "replica"), (B, "primary"), (A, "replica"), (B, "primary")]:
        with request_context(), tenants.engine.connect() as connection:
            assert served(connection, tenant) == role
    assert tenants.engine.router.stats()["events"].get("healed", 0) == 0


def test_none_is_the_default_schema(tenants: Routed) -> None:
    """A schema that is translated to None is the one that the server calls its own."""
    tenants.execute_on_primary("CREATE TABLE orders (id serial PRIMARY KEY, name text NOT NULL)")
    tenants.execute_on_primary("INSERT INTO orders (name) VALUES ('public')")
    tenants.settle()
    engine = tenants.another()  # which has met no server yet
    options: Any = {"schema_translate_map": {"per_user": None}}
    with request_context(), engine.connect() as connection:
        connection = connection.execution_options(**options)
        name, port = connection.execute(sa.select(ORDERS.c.name, PORT)).one()
    assert (name, tenants.name_of(port)) == ("public", "replica")


@pytest.mark.doors(*EVERY_DOOR.args)
def test_keys_that_change_fail_as_with_sqlalchemy(tenants: Routed) -> None:
    """A compiled statement cannot take a map with None in it after one without: SQLAlchemy says
    so, and the connection is good for the next one."""
    with request_context(), tenants.engine.connect() as connection:
        first: Any = {"schema_translate_map": {"per_user": A}}
        second: Any = {"schema_translate_map": of(A)}
        statement = READS["core"]()
        connection.execute(statement, execution_options=first)
        with pytest.raises(sa.exc.StatementError, match="consistent keys"):
            connection.execute(statement, execution_options=second)
        assert tenants.served(connection) == "replica"


def test_writes_are_the_primarys(tenants: Routed) -> None:
    """One row, many at once, an UPDATE and two phases: they pin, and reach their tenant alone."""
    options: Any = {"schema_translate_map": of(B)}
    rows = [{"name": f"n{n}"} for n in range(20)]

    def one(connection: Any) -> None:
        connection.execute(sa.insert(ORDERS), {"name": "three"})

    def many(connection: Any) -> None:
        found = connection.execute(sa.insert(ORDERS).returning(ORDERS.c.id), rows)
        assert len(found.all()) == 20

    def each(connection: Any) -> None:
        update = sa.update(ORDERS).where(ORDERS.c.id == sa.bindparam("i"))
        connection.execute(update, [{"i": 1, "name": "uno"}, {"i": 2, "name": "due"}])

    for write in (one, many, each):
        with request_context(), tenants.engine.connect() as connection:
            connection = connection.execution_options(**options)
            assert tenants.served(connection) == "replica"
            write(connection)
            assert tenants.served(connection) == "primary"
            connection.commit()
    found = tenants.cluster.primary.execute(
        f"SELECT count(*), min(name) FROM {quoted(B)}.orders", dbname=tenants.dbname
    )
    assert found == [(23, "due")]


@pytest.mark.doors("psycopg", "psycopg2")
def test_in_two_phases(tenants: Routed) -> None:
    """A two-phase transaction reads and writes on the primary."""
    options: Any = {"schema_translate_map": of(A)}
    with request_context(), tenants.engine.connect() as connection:
        connection = connection.execution_options(**options)
        with connection.begin_twophase() as transaction:
            assert tenants.name_of(connection.scalar(READS["core"]())) == "primary"
            connection.execute(sa.insert(ORDERS), {"name": "three"})
            transaction.prepare()
            transaction.commit()
    count = f"SELECT count(*) FROM {quoted(A)}.orders"
    assert tenants.cluster.primary.execute(count, dbname=tenants.dbname) == [(3,)]


def test_a_new_tenant_is_made_and_read(tenants: Routed) -> None:
    """create_all asks for tables on a replica, makes them on the primary, and once that is seen
    the new tenant's reads go to a replica."""
    tenants.execute_on_primary('CREATE SCHEMA "new"')
    tenants.settle()
    options: Any = {"schema_translate_map": of("new")}
    engine: Any = tenants.engine.execution_options(**options)
    with request_context(), engine.connect() as connection:
        asked = sa.inspect(connection).has_table("orders", schema="new")
        assert not asked
        assert "primary" not in tenants.engine.router.stats()["decisions"]
        Base.metadata.create_all(connection)
        connection.commit()
    tenants.settle()
    with request_context(), engine.connect() as connection:
        assert connection.scalar(sa.select(sa.func.count()).select_from(ORDERS)) == 0
        statement = sa.select(PORT, sa.func.count(ORDERS.c.id))
        assert tenants.name_of(connection.execute(statement).one()[0]) == "replica"


@pytest.mark.doors("psycopg", "psycopg_async")
def test_most_of_a_tenants_work_is_off_the_primary(tenants: Routed) -> None:
    """Of 200 statements, of which one in ten writes, each request's reads before its write are
    on the replicas."""
    on: dict[str, int] = {"primary": 0, "replica": 0}
    for n in range(20):
        options: Any = {"schema_translate_map": of(A if n % 2 else B)}
        engine = tenants.engine.execution_options(**options)
        with request_context(), engine.connect() as connection:
            for i in range(9):
                name = list(READS)[(n + i) % len(READS)]
                on[tenants.name_of(connection.execute(READS[name]()).scalar_one())] += 1
            connection.execute(sa.insert(ORDERS), {"name": "new"})
            connection.commit()
    assert on == {"primary": 0, "replica": 180}
