"""A schema of one's own, made once however many processes ask for it."""

from router.errors import ConfigError, PrimaryUnavailable
from router.target import router_of

LOCKS = 0x5047524F
"""First key of the advisory locks ("PGRO"), so that they meet nobody else's by chance."""


def create_schema(target: object) -> bool:
    """Make the first schema of a cluster on its primary, unless it is there.

    Safe to call from every process at its start: they wait for each other. Blocks; on an event
    loop call it by ``asyncio.to_thread``.

    Args:
        target: a routed engine, a `Router`, a `Config`, or the primary's URL.

    Returns:
        whether it was made by this call.

    Raises:
        ConfigError: no schema is configured.
        PrimaryUnavailable: there is no primary to make it on.
        psycopg.Error: the server cannot be reached, or the role must not make it.
    """
    import psycopg
    from psycopg import sql

    router, owned = router_of(target)
    names = router.config.schema
    if not names:
        raise ConfigError("schema: none is configured: give its name to the engine or the Config")
    try:
        router.start()
        primary = router.primary
        if primary is None:
            raise PrimaryUnavailable("no node is known to be the primary: start it first")
        with psycopg.connect(**router.connect_args(primary)) as connection:
            connection.execute("SELECT pg_advisory_xact_lock(%s, hashtext(%s))", (LOCKS, names[0]))
            found = connection.execute(
                "SELECT FROM pg_namespace WHERE nspname = %s", (names[0],)
            ).fetchone()
            if found is None:
                connection.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(names[0])))
        return found is None
    finally:
        if owned:
            router.close()
