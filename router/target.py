"""What functions beside the engines take: anything that names a cluster."""

from router.config import Config
from router.core import Router
from router.errors import ConfigError
from router.monitor import Monitor


def router_of(target: object) -> tuple[Router, bool]:
    """The Router of a routed engine, a Router, a Config or the primary's URL.

    Returns:
        it, and whether it was made here, and so has to be closed.

    Raises:
        ConfigError: the target is none of these, or malformed.
    """
    for found in (target, getattr(target, "router", None)):
        if isinstance(found, Router):
            return found, False
    if isinstance(target, str):
        target = Config.from_url(target)
    if not isinstance(target, Config):
        raise ConfigError(
            f"target: {type(target).__name__} is no routed engine, Router, Config or URL"
        )
    router, config = Router(target), target
    router.watch(
        Monitor(router, lambda node: config.libpq() | router.servers[node].connect_args())
    )
    return router, True
