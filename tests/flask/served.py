"""The blog as gunicorn runs it for tests/flask/drive.py: each response says which servers answered
its reads, as they say themselves."""

from typing import Any
from weakref import WeakKeyDictionary

import sqlalchemy as sa
from flask import Flask, Response, g

from examples.flask.blog import create_app

HEADER = "X-Served-By"

_ports: WeakKeyDictionary[Any, int] = WeakKeyDictionary()


def _port(connection: Any) -> int:
    """The port of the server behind a driver's connection: asked once, for it cannot change."""
    port = _ports.get(connection)
    if port is None:
        with connection.cursor() as cursor:
            cursor.execute("SELECT inet_server_port()")
            port = _ports[connection] = int(cursor.fetchone()[0])
    return port


@sa.event.listens_for(sa.Engine, "after_cursor_execute")
def _note(
    connection: Any, cursor: Any, statement: str, parameters: Any, context: Any, many: bool
) -> None:
    if statement.lstrip().startswith("SELECT") and hasattr(g, "served"):
        # The context's cursor: a read that failed was repeated on another node.
        g.served.append(_port(context.cursor.connection))


def made() -> Flask:
    app = create_app()

    @app.before_request
    def begin() -> None:
        g.served = []

    app.before_request_funcs[None].insert(0, app.before_request_funcs[None].pop())

    @app.after_request
    def tell(response: Response) -> Response:
        response.headers[HEADER] = " ".join(map(str, g.served))
        return response

    return app


application = made()
