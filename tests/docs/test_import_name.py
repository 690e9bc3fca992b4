"""docs/how-to/import-name.md, tried beside a real router.py."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import router

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "how-to" / "import-name.md").read_text()
FIRST_LINES, BY_PATH = re.findall(r"(?ms)^<!-- not run: .*?-->\n```python\n(.*?)^```", PAGE)
OURS = str(Path(router.__file__).resolve())
SHOW = "import router\nprint(router.__file__)\n"


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """An application with a router.py, a package with another one, and a module beside them."""
    (tmp_path / "shop").mkdir()
    for name in ("router.py", "shop/__init__.py", "shop/router.py"):
        (tmp_path / name).write_text("routes = ['/items']\n")
    (tmp_path / "prices.py").write_text("tea = 3\n")
    return tmp_path


def run(shop: Path, *arguments: str, **env: str) -> "subprocess.CompletedProcess[str]":
    known = {k: os.environ[k] for k in ("PATH", "HOME") if k in os.environ}
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=shop,
        env=known | env,
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_file_beside_the_program_is_found_first(shop: Path) -> None:
    """The page's symptoms are what Python says, wherever the directory comes first."""
    (shop / "main.py").write_text(SHOW)
    for arguments in (["main.py"], ["-m", "main"], ["-c", SHOW]):
        assert Path(run(shop, *arguments).stdout.strip()) == shop / "router.py"
    told = [
        run(shop, "-c", f"import router\n{line}").stderr.splitlines()[-1]
        for line in ("router.create_engine", "import router.flask")
    ]
    plugin = "import sqlalchemy as s; s.create_engine('postgresql+psycopg://a@b/c?plugin=router')"
    told.append(run(shop, "-c", plugin).stderr.splitlines()[-1])
    symptoms = re.findall(r"`((?:Attribute|ModuleNotFound)Error: .+?)…?` \|$", PAGE, re.MULTILINE)
    assert len(symptoms) == len(told) == 3
    for symptom, line in zip(symptoms, told, strict=True):
        assert line.startswith(symptom)


def test_a_module_in_a_package_is_in_nobodys_way(shop: Path) -> None:
    """shop.router and router are two modules once no router.py lies at the top."""
    (shop / "router.py").unlink()
    (shop / "main.py").write_text(f"from shop.router import routes\nassert routes\n{SHOW}")
    assert run(shop, "main.py").stdout.strip() == OURS


def test_the_first_lines_of_the_page_cure_it(shop: Path) -> None:
    """With them `router` is the package, the other modules are found, and the file by its path."""
    check = "import prices\nassert (prices.tea, shop_routes.routes) == (3, ['/items'])\n"
    (shop / "main.py").write_text(FIRST_LINES + BY_PATH + check + SHOW + "router.create_engine\n")
    done = run(shop, "main.py")
    assert (done.returncode, done.stdout.strip()) == (0, OURS), done.stderr


def test_safe_path_keeps_the_directory_out(shop: Path) -> None:
    """PYTHONSAFEPATH lets the package be found, and the program's own modules not."""
    (shop / "main.py").write_text(SHOW + "import prices\n")
    done = run(shop, "main.py", PYTHONSAFEPATH="1")
    assert done.stdout.strip() == OURS
    assert "No module named 'prices'" in done.stderr


@pytest.mark.slow
def test_pytest_starts_without_the_plugin(shop: Path) -> None:
    """`python -m pytest` ends at the plugin of pg-router, and with -p no:pg_router does not."""
    (shop / "test_it.py").write_text("def test_it():\n    assert True\n")
    command = ["-m", "pytest", "-q", "-p", "no:cacheprovider"]
    assert 'Error while loading plugin "pytest11"' in run(shop, *command).stderr
    assert "1 passed" in run(shop, *command, "-p", "no:pg_router").stdout
