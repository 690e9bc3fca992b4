"""When the stamp of the catalog is asked for."""

from router.cluster.stamp import INTERVAL, LONGEST, SHARE, StampPace
from router.model import Lsn

A, B = Lsn(100), Lsn(200)


def asked(pace: StampPace, lsn: Lsn | None, now: float, took: float, processes: int) -> None:
    """It is asked for at `now`, and answered."""
    pace.asking(lsn, now)
    pace.answered(took, processes)


def test_an_idle_primary_is_not_asked() -> None:
    """Where nothing was written nothing can have changed; one that tells no position is asked."""
    pace = StampPace()
    assert pace.due(A, 0)
    asked(pace, A, 0, 0.002, 1)
    assert not pace.due(A, 1000)
    assert pace.due(B, 1000)
    assert pace.due(None, 1000)


def test_a_cheap_stamp_is_asked_for_each_second_and_soon_in_doubt() -> None:
    """In doubt it does not wait for its second, but for what it may cost."""
    pace = StampPace()
    asked(pace, A, 0, 0.002, 1)
    assert not pace.due(B, INTERVAL - 0.01)
    assert pace.due(B, INTERVAL)
    pace.doubt()
    assert not pace.due(B, 0.002 / SHARE - 0.001)
    assert pace.due(B, 0.002 / SHARE)
    asked(pace, B, 0.1, 0.002, 1)
    assert not pace.due(A, 0.5)


def test_all_processes_together_keep_to_their_share() -> None:
    """The more it costs, and the more processes ask, the more seldom each of them does."""
    for took, processes in ((0.02, 1), (0.002, 1000), (0.02, 100), (3, 50), (0.0, 0)):
        pace = StampPace()
        asked(pace, A, 0, took, processes)
        gap = max(INTERVAL, min(LONGEST, took * processes / SHARE))
        assert not pace.due(B, gap * 0.99)
        assert pace.due(B, gap)


def test_a_server_that_takes_too_long_is_left_alone_longer_and_longer() -> None:
    """Not even in doubt is it asked again soon; after an answer it is asked as before."""
    pace = StampPace()
    now = 0.0
    for pause in (5, 10, 20, 40, 60, 60):
        pace.asking(A, now)
        pace.failed(slow=True)
        pace.doubt()
        assert not pace.due(B, now + pause - 0.1)
        now += pause
        assert pace.due(B, now)
    asked(pace, A, now, 0.002, 1)
    assert pace.due(B, now + INTERVAL)


def test_a_lost_answer_is_asked_for_again() -> None:
    """A connection that was cut says nothing of the server: the next probe asks, though the
    primary has written nothing since."""
    pace = StampPace()
    pace.asking(A, 0)
    pace.failed(slow=False)
    assert pace.due(A, INTERVAL)
