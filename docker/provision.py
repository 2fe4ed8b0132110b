"""Create the secrets of the stack once; existing ones stay unchanged.

Each is a file in a folder that only the containers that need a secret mount.
"""

import secrets
import sys
from pathlib import Path

from index.release.atomic_io import atomic_path


def provision(folder: Path) -> list[str]:
    """Create a password each for Redis and Grafana, and Redis's as a line of its config file.

    Readable by everyone with access to the folder, as programs of several users need it.
    Returns the names of the secrets created.
    """
    created = []
    for name in ("redis-password", "grafana-password"):
        if not (folder / name).exists():
            _write(folder / name, secrets.token_urlsafe(32))
            created.append(name)
    password = (folder / "redis-password").read_text(encoding="utf-8").strip()
    _write(folder / "redis.conf", f"requirepass {password}\n")
    return created


def _write(path: Path, text: str) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
        temporary.chmod(0o444)


if __name__ == "__main__":
    created = provision(Path(sys.argv[1]))
    print("created:", ", ".join(created) or "nothing; all secrets exist")
