"""What a balancer of your own has, for the option ``balance``; see `router.rules.balance`."""

from router.rules.balance import Balancer, Watching

__all__ = ["Balancer", "Watching"]
