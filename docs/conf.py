import sys
import tomllib
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "_ext"))

import goes
import options

PYPROJECT = Path(__file__).parents[1] / "pyproject.toml"

project = "pg-router"
author = copyright = "pg-router contributors"
version = release = tomllib.loads(PYPROJECT.read_text())["project"]["version"]

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]
nitpicky = False  # types of drivers and frameworks live in documentation we do not fetch
myst_enable_extensions = ["colon_fence", "deflist", "fieldlist", "substitution"]
myst_substitutions = {
    "options": options.table(),
    "statements": goes.statements(),
    "unsafe_functions": goes.unsafe(),
    "harmless_functions": goes.harmless(),
    "server_local": goes.server_local(),
    "local_settings": goes.local_settings(),
    "vouched_extensions": goes.vouched(),
}
myst_heading_anchors = 3
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented_params"
autodoc_preserve_defaults = True
autodoc_member_order = "bysource"

html_theme = "furo"
html_title = f"pg-router {version}"
html_static_path = ["_static"]
html_css_files = ["tables.css"]
