"""Compares what the configuration says with what the servers are."""

from router.doctor.diagnosis import Diagnosis, doctor
from router.doctor.findings import Finding

__all__ = ["Diagnosis", "Finding", "doctor"]
