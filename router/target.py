"""What functions beside the engines take: anything that names a cluster."""

from router.cluster.monitor import Monitor
from router.cluster.router import Router
from router.config.config import Config
from router.errors import ConfigError


def router_of(target: object) -> tuple[Router, bool]:
    """The Router of `target`: a routed engine, a Router, a Config or the primary's URL.

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
    router.use_monitor(
        Monitor(router, lambda node: config.libpq() | router.servers[node].connect_args())
    )
    return router, True
