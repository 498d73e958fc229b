"""How much memory there is."""

import os
from pathlib import Path


def available_memory() -> int:
    """Bytes of host memory that a new process can have; elsewhere than on Linux, all that the machine has."""
    meminfo = Path("/proc/meminfo")
    if meminfo.exists():
        for line in meminfo.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
