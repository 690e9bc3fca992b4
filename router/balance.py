"""What a balancer of your own has, for the option ``balance``; see `router.rules.balance`."""

from router.rules.balance import Balancer, TimedBalancer

Watching = TimedBalancer

__all__ = ["Balancer", "TimedBalancer", "Watching"]
