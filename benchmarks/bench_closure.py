"""What reading a database's catalog costs, and the closure over it, with more and more functions.

    python benchmarks/bench_closure.py [--functions 10 1000 50000]

Half the functions are in PL/pgSQL, half in SQL; each has about ten lines, names two tables and
calls another. Prints the server's time with the transfer, the closure of a first reading and of
one after it, the longest another thread waited meanwhile, and the memory both keep.
"""

import argparse
import sys
import threading
import time
import tracemalloc
from pathlib import Path

import psycopg

sys.path.insert(0, str(Path(__file__).parents[1]))

from router.sql.catalog import Catalog
from router.testing import Cluster

PLPGSQL = """
create function app.p{n}(a int, b text default 'x') returns numeric language plpgsql as $body$
declare
    total numeric := 0;
    r record;
begin
    for r in select o.id, o.amount from app.orders o join app.people p on p.id = o.person
             where o.state = b and p.id > a loop
        if r.amount is null then
            continue;  -- nothing was paid
        end if;
        total := total + coalesce(r.amount, 0) * app.s{before}(r.id, b);
    end loop;
    return round(total, 2);
end
$body$"""
SQL = """
create function app.s{n}(a int, b text) returns numeric language sql stable as $body$
    select coalesce(sum(o.amount), 0)
    from app.orders o
    left join app.people p on p.id = o.person and p.name <> b
    where o.id = a
      and o.state in ('new', 'paid')
      and lower(p.name) like '%' || b
    having count(*) > 0
$body$"""


def main() -> None:
    """Make the functions, read, close, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--functions", type=int, nargs="*", default=[10, 1000, 50_000])
    print("functions   read ms   rows kB   first ms   again ms   longest wait ms   memory MB")
    with Cluster(0) as cluster:
        for count in parser.parse_args().functions:
            name = f"closure_{count}"
            cluster.primary.execute(f"create database {name}")
            with psycopg.connect(cluster.primary.conninfo(name), autocommit=True) as connection:
                make(connection, count)
                measure(connection, count)


def make(connection: psycopg.Connection, count: int) -> None:
    """Two tables and `count` functions."""
    connection.execute(
        "create schema app; create table app.people (id int primary key, name text);"
        "create table app.orders (id int primary key, person int, amount numeric, state text);"
        "set check_function_bodies = off"
    )
    for n in range(count // 2):
        connection.execute(SQL.format(n=n))
        connection.execute(PLPGSQL.format(n=n, before=max(0, n - 1)))


def measure(connection: psycopg.Connection, count: int) -> None:
    """Read and close twice; one line."""
    began = time.perf_counter()
    rows = {part: connection.execute(sql).fetchall() for part, sql in Catalog.QUERIES.items()}
    read = time.perf_counter() - began
    size = sum(len(str(row)) for table in rows.values() for row in table)
    before = Waits()
    began = time.perf_counter()
    catalog = Catalog.from_rows(rows)
    first = time.perf_counter() - began
    longest = before.stop()
    began = time.perf_counter()
    Catalog.from_rows(rows, bodies=catalog.bodies)
    again = time.perf_counter() - began
    tracemalloc.start()
    kept = Catalog.from_rows(rows)
    memory = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert len(kept.functions) >= count
    print(
        f"{count:9,} {read * 1e3:9.0f} {size / 1e3:9.0f} {first * 1e3:10.1f} {again * 1e3:10.1f} "
        f"{longest * 1e3:17.1f} {memory / 1e6:11.1f}",
        flush=True,
    )


class Waits:
    """How long a thread that wants to run every millisecond waits at most."""

    def __init__(self) -> None:
        self._over = threading.Event()
        self._longest = 0.0
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while not self._over.is_set():
            began = time.perf_counter()
            time.sleep(0.001)
            self._longest = max(self._longest, time.perf_counter() - began - 0.001)

    def stop(self) -> float:
        """The longest wait, in seconds."""
        self._over.set()
        self._thread.join()
        return self._longest


if __name__ == "__main__":
    main()
