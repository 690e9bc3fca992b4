"""explain() says what a statement does and where it would go now."""

import router
from router.explain import Explanation
from router.rules.situation import Transaction
from tests.sqlalchemy.kit import Routed


def test_without_a_cluster_explain_tells_the_intent() -> None:
    """Without a Router the intent and what decided it are told."""
    text = str(router.explain("SELECT 1 FOR UPDATE"))
    assert text.startswith("intent:  write: ")
    assert "FOR UPDATE" in text


def nodes(explained: Explanation) -> set[str]:
    assert explained.decision is not None
    return {node.name for node in explained.decision.nodes}


def test_explain_names_the_nodes_and_the_rule(routed: Routed) -> None:
    """With a Router the candidates and the rule are told, and nothing is sent."""
    its = routed.engine.router
    before = its.stats()["decisions"]
    read = router.explain("SELECT count(*) FROM item", its)
    assert nodes(read) == {"replica1", "replica2"}
    assert "because: a read" in str(read)
    write = router.explain("DELETE FROM item", its)
    assert nodes(write) == {"primary"}
    inside = router.explain("SELECT 1", its, transaction=Transaction.EXPLICIT)
    assert nodes(inside) == {"primary"}
    assert its.stats()["decisions"] == before
    assert routed.count() == 0


def test_explain_says_why_a_statement_cannot_run() -> None:
    """With the primary unreachable a write's explanation is the error it would get."""
    engine = router.create_engine("postgresql://app@127.0.0.1:1/db", replicas=["127.0.0.1:2"])
    try:
        engine.router.start()
        engine.router.refresh()
        assert "primary (127.0.0.1:1)" in router.explain("DELETE FROM item", engine.router).problem
    finally:
        engine.dispose()
