"""The processor of this machine: what is cheapest depends on it."""

import platform
from functools import cache
from pathlib import Path


@cache
def processor_name() -> str:
    """As the system tells it, such as "AMD EPYC 7763"; its architecture if it tells nothing."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return next(filter(None, names), platform.processor() or platform.machine())
