"""Random numbers of the router's own: an application that seeds Python's keeps its sequence."""

import os
import random
from collections.abc import Callable

_own = random.Random()
rand: Callable[[], float] = _own.random
"""Floats in [0, 1)."""

if hasattr(os, "register_at_fork"):
    # Forked workers must not all draw the same replica in step.
    os.register_at_fork(after_in_child=_own.seed)
