"""How hard Hypothesis looks at the pure core: enough to find a race, quick enough for each run."""

import tempfile
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis.configuration import set_hypothesis_home_dir

# Its directory in the tree would be met by the next collection, and the warning is an error.
set_hypothesis_home_dir(Path(tempfile.gettempdir()) / "pg-router-hypothesis")

settings.register_profile(
    "core",
    deadline=None,  # two busy cores: a slow example says nothing
    max_examples=60,
    database=None,
    derandomize=True,  # a run that passed passes again; search wider by hand, with more examples
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("core")
