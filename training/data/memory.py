"""How much memory this process may still take."""

from pathlib import Path

_MEMORY_INFO = Path("/proc/meminfo")
_CGROUPS = Path("/proc/self/cgroup")
# The limits of a cgroup, of version 2 and 1, and what it uses.
_FILES = (
    (Path("/sys/fs/cgroup"), "memory.max", "memory.current"),
    (Path("/sys/fs/cgroup/memory"), "memory.limit_in_bytes", "memory.usage_in_bytes"),
)


def available_memory() -> int:
    """Bytes that are free or can be freed, on the machine and in each cgroup of the process."""
    found = [_on_the_machine()]
    for group in _cgroups():
        for root, limit_file, used_file in _FILES:
            limit = _number(root / group / limit_file)
            if limit is not None:
                found.append(limit - (_number(root / group / used_file) or 0))
    return max(min(found), 0)


def _on_the_machine() -> int:
    for line in _MEMORY_INFO.read_text().splitlines():
        name, _, value = line.partition(":")
        if name == "MemAvailable":
            return int(value.split()[0]) << 10
    raise RuntimeError(f"{_MEMORY_INFO}: no MemAvailable; this needs Linux")


def _cgroups() -> set[Path]:
    """Relative to their root; the root itself is what a container sees as its own."""
    paths = {Path()}
    for line in _CGROUPS.read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers in ("", "memory"):
            own = Path(path.lstrip("/"))
            paths |= {own, *own.parents}
    return paths


def _number(path: Path) -> int | None:
    """None where there is no file, or no limit."""
    try:
        text = path.read_text().strip()
    except OSError:
        return None
    return int(text) if text.isdigit() else None
