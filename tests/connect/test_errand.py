"""What is opened for somebody who may give up meanwhile."""

import threading

import pytest

from router.connect.errand import Errand


def test_what_was_opened_is_taken() -> None:
    """Whoever waits to the end gets what was opened, and nothing comes late."""
    late: list[str] = []
    told = threading.Event()
    errand = Errand(lambda: "connection", told.set, late.append)
    errand.run()
    assert told.is_set()
    assert errand.done
    assert not errand.give_up()
    assert errand.take() == "connection"
    assert late == []


def test_what_comes_after_the_caller_gave_up_comes_late() -> None:
    """It goes to whoever keeps it, and to nobody else."""
    late: list[str] = []
    errand = Errand(lambda: "connection", lambda: None, late.append)
    assert errand.give_up()
    errand.run()
    assert late == ["connection"]


def test_an_error_is_raised_where_somebody_waits() -> None:
    """What opening raises is the caller's; once he has given up it is nobody's."""

    def fails() -> str:
        raise OSError("refused")

    errand = Errand(fails, lambda: None, lambda _: None)
    errand.run()
    with pytest.raises(OSError, match="refused"):
        errand.take()
    given_up = Errand(fails, lambda: None, lambda _: pytest.fail("nothing was opened"))
    assert given_up.give_up()
    given_up.run()


def test_between_threads_it_is_either_taken_or_late() -> None:
    """However the end of opening and giving up fall together, one has the connection."""
    started = threading.Barrier(2)

    def open_() -> int:
        started.wait()
        return 1

    for _ in range(300):
        late: list[int] = []
        errand = Errand(open_, lambda: None, late.append)
        thread = threading.Thread(target=errand.run)
        thread.start()
        started.wait()
        taken = None if errand.give_up() else errand.take()
        thread.join()
        assert [taken, *late].count(1) == 1
