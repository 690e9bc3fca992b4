"""Views that say which server answered."""

from collections.abc import Callable
from typing import Any

import sqlalchemy as sa
from flask import Flask

COUNT = sa.text("SELECT count(*), inet_server_port() FROM item")
INSERT = sa.text("INSERT INTO item (name) VALUES ('tea')")


def views(app: Flask, session: Callable[[], Any]) -> None:
    """Give `app` views that read and write by ``session()``."""

    @app.get("/")
    def index() -> dict[str, int]:
        count, port = session().execute(COUNT).one()
        return {"count": count, "port": port}

    @app.post("/")
    def add() -> dict[str, int]:
        before = index()
        session().execute(INSERT)
        session().commit()
        return before

    @app.post("/search")
    def search() -> dict[str, int]:
        return index()
