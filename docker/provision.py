"""Makes the secrets of the stack, once: those that are there stay as they are.

Each is a file of a folder that only the containers that need one of them have mounted.
"""

import secrets
import sys
from pathlib import Path

from index.release.atomic_io import atomic_path


def provision(folder: Path) -> list[str]:
    """What was made: a password each for Redis and Grafana, and Redis's as a line of its settings.

    Readable to whoever has the folder, as programs of several users do.
    """
    made = []
    for name in ("redis-password", "grafana-password"):
        if not (folder / name).exists():
            _write(folder / name, secrets.token_urlsafe(32))
            made.append(name)
    password = (folder / "redis-password").read_text(encoding="utf-8").strip()
    _write(folder / "redis.conf", f"requirepass {password}\n")
    return made


def _write(path: Path, text: str) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
        temporary.chmod(0o444)


if __name__ == "__main__":
    made = provision(Path(sys.argv[1]))
    print("made:", ", ".join(made) or "nothing, all is there")
