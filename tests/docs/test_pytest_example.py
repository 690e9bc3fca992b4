"""The example test of the page on the testing kit, run by a pytest of its own."""

import os
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

from tests.docs.test_snippets import ROOT, blocks

PAGE = ROOT / "docs" / "how-to" / "test-with-a-real-cluster.md"


def test_the_example_test_passes(tmp_path: Path) -> None:
    """The test that the page shows passes as a file of a reader's project."""
    (example,) = [block for block in blocks(PAGE.read_text()) if "def test_" in block.code]
    imports = "import router\nimport sqlalchemy as sa\n"
    (tmp_path / "test_example.py").write_text(imports + example.code)
    installed = entry_points(group="pytest11", name="pg_router")
    plugin = [] if installed else ["-p", "router.testing.pytest_plugin"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", *plugin, "--rootdir", tmp_path, tmp_path],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert "1 passed" in done.stdout, done.stdout + done.stderr
