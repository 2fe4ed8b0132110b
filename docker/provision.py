"""Create the secrets of the stack once; existing ones stay unchanged.

They are kept in a folder that no other container mounts. Of it, each program gets a folder with a
copy of the secrets that are for it, and of no others.
"""

import secrets
import sys
from collections.abc import Mapping
from pathlib import Path

from index.release.atomic_io import atomic_path

# Who gets which. Redis's is for its clients, too.
FOR = {"redis": ("redis-password", "redis.conf"), "grafana": ("grafana-password",)}


def provision(folder: Path, copies: Mapping[str, Path]) -> list[str]:
    """Create a password each for Redis and Grafana, and Redis's as a line of its config file.

    copies: the folder of each program of FOR. Files are readable by everyone with access to their
    folder, as programs of several users need them. Returns the names of the secrets created.
    """
    created = []
    for name in ("redis-password", "grafana-password"):
        if not (folder / name).exists():
            _write(folder / name, secrets.token_urlsafe(32))
            created.append(name)
    password = (folder / "redis-password").read_text(encoding="utf-8").strip()
    _write(folder / "redis.conf", f"requirepass {password}\n")
    for program, names in FOR.items():
        for name in names:
            _write(copies[program] / name, (folder / name).read_text(encoding="utf-8"))
    return created


def _write(path: Path, text: str) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
        temporary.chmod(0o444)


if __name__ == "__main__":
    kept, *folders = map(Path, sys.argv[1:])
    created = provision(kept, dict(zip(FOR, folders, strict=True)))
    print("created:", ", ".join(created) or "nothing; all secrets exist")
