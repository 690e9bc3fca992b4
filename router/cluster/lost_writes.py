"""Whether a promotion lost a write that the former primary had acknowledged to this process.

A replica that is promoted has what it had received; what it had not is lost. Only WAL that is
known to have been flushed counts, and of the writes the last one: if any of them is lost, it is.
That a statement changed nothing is not known here.
"""

from typing import NamedTuple

from router.model import Lsn, Role, Sample, Snapshot


class Write(NamedTuple):
    """A write that a primary has acknowledged to this process.

    Attributes:
        sent: when its COMMIT, or the autocommitted statement, was sent (monotonic seconds).
        returned: when that had returned.
    """

    sent: float
    returned: float


class Place(NamedTuple):
    """Where a write stands in the WAL of the primary that acknowledged it.

    Attributes:
        write: the write.
        before: the last sample from before it was sent; its own end is past that position.
        flushed: how far the primary had flushed soon after it, None where nobody has looked.
    """

    write: Write
    before: Sample | None = None
    flushed: Lsn | None = None


class Loss(NamedTuple):
    """What is known to be missing on a timeline that began with a promotion.

    Attributes:
        began: where that timeline began.
        written: how far the WAL of the former primary is known to have gone.
        certain: whether the write is past `began`; else it may be before it.
    """

    began: Lsn
    written: Lsn
    certain: bool


def place(snapshot: Snapshot, write: Write) -> Place | None:
    """Where `write` stands by the samples of `snapshot`; None while none is new enough."""
    after = snapshot.sample_after(write.returned)
    if after is None:
        return None
    return Place(write, snapshot.sample_before(write.sent), after.flushed)


def loss(before: Snapshot, after: Snapshot, write: Write, known: Place | None) -> Loss | None:
    """What the promotion from `before` to `after` cost, None where nothing is known to be lost.
    `write` is the last one acknowledged to this process, `known` its place, where that was found
    while its samples were remembered."""
    branch = after.branch
    if branch is None or not before.samples:
        return None
    if known is None or known.write is not write:
        known = place(before, write) or Place(write, before.sample_before(write.sent))
    began = branch.lsn
    if known.flushed is not None and known.flushed <= began:
        return None
    replicas = [report for report in after.reports.values() if report.role is Role.REPLICA]
    seen = [report.known_before(branch.until) for report in replicas]
    ends = [known.flushed, before.samples[-1].flushed, *(r.lsn for r in seen if r is not None)]
    written = max(lsn for lsn in ends if lsn is not None)
    if written <= began:
        return None
    return Loss(began, written, known.before is not None and known.before.lsn >= began)
