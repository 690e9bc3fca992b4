"""Settings made by set_config() through Django: no node lacks them."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from router import request_context, using_primary
from tests.django.conftest import Routed

pytestmark = pytest.mark.once  # it is about the server, not about Python

SEEN = "SELECT inet_server_port(), current_setting('app.x', true)"
HISTORY = (
    "SELECT set_config('pghistory.context_id', %s, %s), "
    "set_config('pghistory.context_metadata', %s, %s)"
)


def items() -> Any:
    from tests.django.shop.models import Item

    return Item.objects


def seen(routed: Routed) -> dict[str, Any]:
    """The value of app.x as a read sees it, and as one on the primary does, by role."""
    with routed.connection.cursor() as cursor:
        cursor.execute(SEEN)
        port, there = cursor.fetchone()
        with using_primary():
            cursor.execute(SEEN)
            at_primary, here = cursor.fetchone()
    assert routed.role(at_primary) == "primary"
    return {routed.role(port): there, "on the primary": here}


EVERYWHERE = {"replica": "7", "on the primary": "7"}


@contextmanager
def history(routed: Routed, *, before: bool) -> Iterator[None]:
    """As django-pghistory does around a request: its context goes with each statement that writes,
    `before` it or in front of it in one text."""
    metadata = json.dumps({"user": 7, "url": "/it's/?a=%20"})

    def execute(run: Any, sql: Any, params: Any, many: bool, context: Any) -> Any:
        if str(sql).upper().startswith("SELECT"):
            return run(sql, params, many, context)
        own = ("1a2b", True, metadata, True)
        if before:
            context["cursor"].cursor.execute(HISTORY, own)
            return run(sql, params, many, context)
        return run(f"{HISTORY}; {sql}", (*own, *(params or ())), many, context)

    with routed.connection.execute_wrapper(execute):
        yield


def bound(routed: Routed) -> bool:
    return bool(routed.connection.connection.checkout.bound)


def test_a_request_with_history_is_still_offloaded(routed: Routed) -> None:
    """Its local settings bind nothing: reads after it are on a replica, in and out of atomic()."""
    from django.db import transaction

    for before in (False, True):
        with request_context(), history(routed, before=before):
            assert routed.served() == "replica"
            items().create(name="tea")
            items().filter(name="tea").update(name="milk")
            assert not bound(routed)
            with transaction.atomic():
                items().create(name="tea")
                with routed.connection.cursor() as cursor:
                    cursor.execute("SELECT current_setting('pghistory.context_id', true)")
                    assert cursor.fetchone() == ("1a2b",)
            assert not bound(routed)
            routed.settle()
            assert routed.served() == "replica"
            assert items().count() > 0
            assert not bound(routed)


def test_a_setting_for_the_session_is_seen_on_every_node(routed: Routed) -> None:
    """With is_local as a parameter, alone, in front of a write, and by executemany."""
    for sets in ([("app.x", "7", False)], [("app.x", "6", False), ("app.x", "7", False)]):
        with request_context(), routed.connection.cursor() as cursor:
            cursor.executemany("SELECT set_config(%s, %s, %s)", sets)
            assert seen(routed) == EVERYWHERE
            assert not bound(routed)
        routed.connection.close()
    with request_context(), routed.connection.cursor() as cursor:
        sql = "SELECT set_config('app.x', %s, %s); INSERT INTO shop_item (name) VALUES (%s)"
        cursor.execute(sql, ("7", False, "tea"))
        assert bound(routed)
        assert seen(routed) == {"primary": "7", "on the primary": "7"}


def test_a_computed_value_is_what_it_gave(routed: Routed) -> None:
    """It is not computed again on the node that is taken later."""
    with request_context(), routed.connection.cursor() as cursor:
        cursor.execute("SELECT set_config('app.x', statement_timestamp()::text || %s, %s)",
                       ("'%s", False))  # fmt: skip
        found = seen(routed)
        assert set(found) == {"replica", "on the primary"}
        assert len(set(found.values())) == 1
        assert str(found["replica"]).endswith("'%s")


def test_a_copy_that_sets_binds(routed: Routed) -> None:
    """So does a stream, whose rows come one by one."""
    sql = "SELECT set_config('app.x', '7', false)"
    with request_context(), routed.connection.cursor() as cursor:
        with cursor.copy(f"COPY ({sql}) TO STDOUT") as copy:
            list(copy)
        assert seen(routed) == {"primary": "7", "on the primary": "7"}
    routed.connection.close()
    with request_context(), routed.connection.cursor() as cursor:
        list(cursor.stream(sql))
        assert seen(routed) == {"primary": "7", "on the primary": "7"}
