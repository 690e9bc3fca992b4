"""One finding of the doctor; the rules stand in `router.doctor.findings`."""

from router.doctor.findings import Finding

__all__ = ["Finding"]
