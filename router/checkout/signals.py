"""Process ids: one that a replica told means another process on the primary, or none."""

from typing import TYPE_CHECKING, Any

from router.rules.context import RoutingContext

if TYPE_CHECKING:
    from router.checkout.route import Route
    from router.checkout.transaction import Transactions


def note_asked(route: "Route[Any]") -> None:
    """The replica of `route` is about to tell something of itself, which may be a process id."""
    checkout, node = route.checkout, route.held.node
    checkout.asked = node
    if not route.context.root:  # outside any request nobody knows who will use it
        pins = route.context.pins
        pins.asked = {**pins.asked, checkout.router.cluster: node}


def warn_of_signal(checkout: "Transactions[Any]", context: RoutingContext) -> None:
    """Say so if `checkout` is about to signal a process, on the primary, and it or its `context`
    was told something by a replica of itself: the process id may be from there."""
    router = checkout.router
    asked = checkout.asked or context.pins.asked.get(router.cluster)
    if asked is None:
        return
    router.telemetry.event(
        "signal_doubted",
        level="warning",
        node=asked.name,
        advice="signals are sent on the primary, where a process id of this replica means another "
        "process or none: for a process of the replica connect to that server itself",
    )
