"""What classifying costs: a text seen before, a first one, and 10,000 texts remembered.

python benchmarks/classify.py
"""

import sys
import timeit
import tracemalloc
from pathlib import Path

import pgparse  # type: ignore[import-not-found]

sys.path.insert(0, str(Path(__file__).parents[1]))

from router.sql import placeholders
from router.sql.catalog import Catalog
from router.sql.classifier import Classifier
from router.sql.objects import Relation

NAMES = ("users", "orders", "addresses")
CATALOG = Catalog(loaded=True, relations={n: (Relation("public", n),) for n in NAMES})
QUERY = """SELECT u.id, u.name, u.email, count(o.id) AS orders, sum(o.total) AS total
FROM users AS u
JOIN orders AS o ON o.user_id = u.id
LEFT JOIN addresses AS a ON a.user_id = u.id AND a.kind = 'home'
WHERE u.active = true
  AND u.created_at > '2024-01-01'::timestamptz
  AND (u.name ILIKE %(name)s OR u.email ILIKE %(email)s)
GROUP BY u.id, u.name, u.email
HAVING count(o.id) > 3
ORDER BY total DESC LIMIT 10 OFFSET 20"""


def best(statement: str, number: int, **names: object) -> float:
    """Microseconds per run, the best of seven rounds: others share the machine."""
    rounds = timeit.repeat(statement, globals=names, number=number, repeat=7)
    return min(rounds) / number * 1e6


def main() -> None:
    classifier = Classifier(CATALOG)
    classifier(QUERY)
    assert classifier(QUERY).kind.name == "READ"
    hit = best("c(q)", 1_000_000, c=classifier, q=QUERY)
    first = best("c._decide(q, c._judge)", 2_000, c=classifier, q=QUERY)
    parse = best("p(q)", 2_000, p=pgparse.parse, q=placeholders.percent(QUERY))
    rewrite = best("p(q)", 2_000, p=placeholders.percent, q=QUERY)
    print(f"seen before:          {hit:8.3f} µs")
    print(f"first, ten lines:     {first:8.1f} µs")
    print(f"  of it pgparse:      {parse:8.1f} µs")
    print(f"  of it placeholders: {rewrite:8.1f} µs")

    texts = [QUERY.replace("OFFSET 20", f"OFFSET {i}") for i in range(20_000)]
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    classifier = Classifier(CATALOG)
    for text in texts:
        classifier(text)
    used = tracemalloc.get_traced_memory()[0] - before
    print(f"remembered:           {len(classifier):8,} texts in {used / 1e6:.2f} MB beside them")


if __name__ == "__main__":
    main()
