"""Row-level security rests on session state: a tenant id missing on a node is a data leak."""

import random
import threading
from collections import Counter

import pytest
import sqlalchemy as sa

import router
from router.sqlalchemy import RoutedEngine
from tests.sqlalchemy.kit import Routed

TENANTS = 20
REQUESTS = 1000
THREADS = 10

SCHEMA = f"""
DO $$ BEGIN
  IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'tenants_app') THEN
    CREATE ROLE tenants_app LOGIN;
    FOR i IN 0 .. {TENANTS - 1} LOOP
      EXECUTE format('CREATE ROLE tenant_%s', i);
      EXECUTE format('GRANT tenant_%s TO tenants_app', i);
    END LOOP;
  END IF;
END $$;
CREATE TABLE secret (id serial PRIMARY KEY, tenant text NOT NULL, note text NOT NULL);
INSERT INTO secret (tenant, note)
  SELECT 'tenant_' || t, 'seed' FROM generate_series(0, {TENANTS - 1}) t, generate_series(1, 3);
ALTER TABLE secret ENABLE ROW LEVEL SECURITY;
CREATE POLICY own ON secret
  USING (tenant = coalesce(nullif(current_setting('app.tenant', true), ''), current_user))
  WITH CHECK (tenant = coalesce(nullif(current_setting('app.tenant', true), ''), current_user));
GRANT ALL ON secret TO PUBLIC;
GRANT USAGE ON SEQUENCE secret_id_seq TO PUBLIC;
"""


def prepare(routed: Routed) -> RoutedEngine:
    """Create roles, table and policy, and an engine that logs in as the role ``tenants_app``."""
    routed.execute_on_primary(SCHEMA)
    routed.cluster.wait_caught_up()

    def as_app(url: str) -> str:
        return sa.make_url(url).set(username="tenants_app").render_as_string(hide_password=False)

    cluster = routed.cluster
    return routed.another(
        url=as_app(cluster.primary.url(routed.dbname)),
        replicas=[as_app(r.url(routed.dbname)) for r in cluster.replicas],
        pool_size=3,
        max_overflow=2,
    )


def enter(connection: sa.Connection, how: str, tenant: str) -> None:
    """Say who the tenant is, in one of the ways applications do it."""
    if how == "set local":
        connection.execute(sa.text(f"SET LOCAL app.tenant = '{tenant}'"))
    elif how == "set_config":
        statement = sa.text("SELECT set_config('app.tenant', :tenant, true)")
        connection.execute(statement, {"tenant": tenant})
    elif how == "set role":
        connection.execute(sa.text(f"SET ROLE {tenant}"))
    else:
        connection.execute(sa.text(f"SET app.tenant = '{tenant}'"))


@pytest.mark.slow
def test_no_tenant_ever_sees_anothers_row_on_any_node(routed: Routed) -> None:
    """1,000 interleaved requests of 20 tenants over shared pools, the tenant said by SET LOCAL,
    set_config(…, true), SET ROLE and SET in turn, reads on replicas and writes on the primary: no
    row of another tenant is ever returned, on any node."""
    engine = prepare(routed)
    ask = sa.text("SELECT tenant, inet_server_port() FROM secret")
    add = sa.text("INSERT INTO secret (tenant, note) VALUES (:tenant, 'new')")
    leaks: list[str] = []
    failures: list[str] = []
    served: Counter[str] = Counter()
    ways = ("set local", "set_config", "set role", "set")

    def request(n: int, rng: random.Random) -> None:
        tenant = f"tenant_{rng.randrange(TENANTS)}"
        how = ways[n % len(ways)]
        with router.request_context(), engine.connect() as connection:
            enter(connection, how, tenant)
            look(connection, tenant, how)
            if rng.random() < 0.3:
                connection.execute(add, {"tenant": tenant})
                look(connection, tenant, how)
            if rng.random() < 0.2:
                connection.rollback()
            else:
                connection.commit()
            if rng.random() < 0.5:
                # What was local is over now, and what was rolled back as well.
                rows = connection.execute(ask).all()
                if {t for t, _ in rows} - {tenant}:
                    leaks.append(f"after the end of {how}: {rows[:3]}")

    def look(connection: sa.Connection, tenant: str, how: str) -> None:
        rows = connection.execute(ask).all()
        for _, port in rows[:1]:
            served[routed.name_of(port)] += 1
        if len(rows) < 3 or {t for t, _ in rows} != {tenant}:
            leaks.append(f"{how} {tenant}: {rows[:5]}")

    def work(number: int) -> None:
        rng = random.Random(number)
        for n in range(REQUESTS // THREADS):
            try:
                request(n, rng)
            except Exception as error:
                failures.append(f"{type(error).__name__}: {error}")

    threads = [threading.Thread(target=work, args=(i,)) for i in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert leaks == []
    assert served["replica"] > served["primary"] > 0


def test_the_checker_would_see_a_leak(routed: Routed) -> None:
    """The same question as a superuser, whom no policy binds, returns every tenant's rows."""
    prepare(routed)
    with routed.engine.connect() as connection:
        tenants = connection.scalars(sa.text("SELECT DISTINCT tenant FROM secret")).all()
    assert len(tenants) == TENANTS
