"""Whether a file of the application takes the name that this package is imported by."""

from importlib.machinery import PathFinder
from pathlib import Path

from router.doctor.findings import Finding

OURS = Path(__file__).resolve().parents[1] / "__init__.py"


def shadow(directory: Path) -> Finding | None:
    """What ``import router`` would find in `directory` in place of this package, if anything.

    A program's directory comes first where Python looks for modules; a directory without
    ``__init__.py`` comes last of all and is harmless. Nothing is imported.

    Source: https://docs.python.org/3/library/sys_path_init.html
    """
    spec = PathFinder.find_spec("router", [str(directory)])
    if spec is None or spec.origin is None or Path(spec.origin).resolve() == OURS:
        return None
    what = f"{spec.origin} is what `import router` finds in a program that starts there"
    return Finding("warning", "name-taken", "", what, "move it into a package or rename it")
