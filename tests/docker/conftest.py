"""Servers run by the scripts of docker/."""

from collections.abc import Iterator

import pytest

from tests.docker.stage import Stage, set_up


@pytest.fixture
def stage() -> Iterator[Stage]:
    """Where the scripts of docker/ run."""
    with set_up() as found:
        yield found
