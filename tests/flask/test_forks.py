"""A child forked inside a request."""

import sqlalchemy as sa
from flask import Flask

from tests.conftest import Database
from tests.flask.conftest import MakeApp
from tests.flask.kit import INSERT
from tests.flask.test_extension import extension
from tests.forks.kit import ended, fork

PID = sa.text("SELECT pg_backend_pid()").execution_options(router="primary")


def test_a_session_of_the_request_goes_on_in_the_child(make_app: MakeApp, items: Database) -> None:
    """The request's session, which has only read, reads and writes in the child by server sessions
    of the child's own; the parent's request ends as if nobody had forked."""
    app: Flask = make_app()

    @app.get("/fork")
    def forking() -> str:
        session = extension(app).session
        mine = session.scalar(PID)

        def child() -> None:
            assert session.scalar(PID) != mine
            session.execute(INSERT)
            session.commit()

        became = ended(fork(child))
        assert session.scalar(PID) == mine
        session.execute(INSERT)
        session.commit()
        return became

    assert app.test_client().get("/fork").text == "fine"
    assert items.execute("SELECT count(*) FROM item") == [(2,)]
