"""What listeners of SQLAlchemy's own events may do, and the rules hold all the same."""

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

from tests.sqlalchemy.kit import EVERY_DOOR, Routed

pytestmark = EVERY_DOOR


@pytest.mark.parametrize("said", ["SET LOCAL app.tenant = '1'", "SELECT 1"])
def test_a_begin_listener_leaves_an_explicit_transaction_on_the_primary(
    routed: Routed, said: str
) -> None:
    """What a ``begin`` listener executes makes no autobegun transaction of one that was asked for:
    its reads run on the primary."""
    sa.event.listen(routed.engine, "begin", lambda c: c.exec_driver_sql(said))
    with routed.engine.begin() as connection:
        assert routed.served(connection) == "primary"
    with Session(routed.engine) as session, session.begin():
        assert routed.served(session) == "primary"


def test_a_begin_listener_leaves_an_autobegun_connection_on_the_replica(routed: Routed) -> None:
    """What a ``begin`` listener sets where nobody asked for a transaction holds on the replica the
    read goes to."""
    sa.event.listen(
        routed.engine, "begin", lambda c: c.exec_driver_sql("SET LOCAL app.tenant = '1'")
    )
    tenant = sa.text("SELECT current_setting('app.tenant', true)")
    with routed.engine.connect() as connection:
        assert routed.served(connection) == "replica"
        assert connection.scalar(tenant) == "1"
