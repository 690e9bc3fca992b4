"""The package itself: functions stay functions, whatever else is imported before or after."""

import subprocess
import sys
from itertools import permutations

import pytest

ORDERS = list(
    permutations(("import router", "import router.explain", "from router.doctor import doctor"))
)
CHECK = """
from router.explain import Explanation
from router.doctor import Diagnosis, Finding
import router.doctor.survey, router.doctor.facts, router.sql.classifier, router.schema
import router.listener, router.findings, router.status.page
assert router.Explanation is Explanation and type(router.explain("SELECT 1")) is Explanation
assert router.Diagnosis is Diagnosis and router.Finding is Finding is router.findings.Finding
assert router.classify("SELECT 1").kind is router.Kind.READ
for name in ("classify", "explain", "doctor", "listen", "create_schema", "pin"):
    assert type(getattr(router, name)).__name__ == "function", name
"""


@pytest.mark.parametrize("order", ORDERS, ids="; ".join)
def test_functions_named_like_modules_stay_functions(order: tuple[str, ...]) -> None:
    """router.explain and router.doctor are the functions in whatever order what is called like
    them is imported, and what they return is named beside them."""
    code = "\n".join((*order, CHECK))
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
