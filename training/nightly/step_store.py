"""A record of completed steps in one JSON file, which is replaced atomically."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from index.release.atomic_io import replace_text

STATE = "state.json"
Result = dict[str, Any]


class StepStore:
    """The steps of a folder. An interrupted step is repeated; a completed step never is."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._path = folder / STATE
        self._state: Result = {"steps": {}}
        if self._path.exists():
            self._state = json.loads(self._path.read_text(encoding="utf-8"))

    @property
    def metadata(self) -> Result:
        """Everything in the record except its steps."""
        return {name: value for name, value in self._state.items() if name != "steps"}

    def update(self, **metadata: Any) -> None:
        """Add metadata to the record; it must be JSON."""
        self._state |= metadata
        self._write()

    def is_done(self, name: str) -> bool:
        return name in self._state["steps"]

    def result(self, name: str) -> Result:
        """The result of a step; empty if it is not completed."""
        result: Result = self._state["steps"].get(name, {}).get("result", {})
        return result

    def seconds(self) -> dict[str, float]:
        """The duration of each completed step."""
        return {name: step["seconds"] for name, step in self._state["steps"].items()}

    def run_once(self, name: str, work: Callable[[], Result]) -> Result:
        """The result of a step, which runs now unless it is completed. The result must be JSON."""
        if not self.is_done(name):
            started = time.monotonic()
            result = work()
            seconds = round(time.monotonic() - started, 3)
            self._state["steps"][name] = {"seconds": seconds, "result": result}
            self._write()
        return self.result(name)

    def _write(self) -> None:
        replace_text(self._path, json.dumps(self._state, indent=2) + "\n")
