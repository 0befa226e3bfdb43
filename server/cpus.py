"""How many CPUs this process may really use."""

import os
from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")


def available(cgroup: Path = CGROUP) -> int:
    """Returns the whole CPUs that affinity and the cgroup's quota leave, at least one.

    Source: the kernel's documentation of cgroup v2's `cpu.max` ("quota period", in
    microseconds, or "max") and cgroup v1's `cpu.cfs_quota_us` (-1: no limit).

    Args:
        cgroup: where the control groups are mounted.
    """
    cpus = len(os.sched_getaffinity(0))
    quota = _quota_v2(cgroup) or _quota_v1(cgroup)
    return max(1, min(cpus, int(quota))) if quota else cpus


def _quota_v2(cgroup: Path) -> float | None:
    try:
        quota, period = (cgroup / "cpu.max").read_text().split()
    except (OSError, ValueError):
        return None
    return None if quota == "max" else int(quota) / int(period)


def _quota_v1(cgroup: Path) -> float | None:
    try:
        quota = int((cgroup / "cpu/cpu.cfs_quota_us").read_text())
        period = int((cgroup / "cpu/cpu.cfs_period_us").read_text())
    except (OSError, ValueError):
        return None
    return quota / period if quota > 0 else None
