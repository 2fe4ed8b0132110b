"""The steps of a piece of work, each done once: a record in one file that is replaced whole."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from index.release.atomic_io import replace_text

STATE = "state.json"
Result = dict[str, Any]


class Steps:
    """The record of a folder. A step that was cut short is done again; a finished one never is."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._path = folder / STATE
        self._state: Result = {"steps": {}}
        if self._path.exists():
            self._state = json.loads(self._path.read_text(encoding="utf-8"))

    @property
    def about(self) -> Result:
        """What the record says besides its steps."""
        return {name: value for name, value in self._state.items() if name != "steps"}

    def note(self, **about: Any) -> None:
        """Say something besides the steps; all of it must be JSON."""
        self._state |= about
        self._write()

    def done(self, name: str) -> bool:
        return name in self._state["steps"]

    def result(self, name: str) -> Result:
        """Of a step that is done; empty for one that is not."""
        result: Result = self._state["steps"].get(name, {}).get("result", {})
        return result

    def seconds(self) -> dict[str, float]:
        """What each step took, in the run that finished it."""
        return {name: step["seconds"] for name, step in self._state["steps"].items()}

    def once(self, name: str, work: Callable[[], Result]) -> Result:
        """The result of a step, which is done now if it is not yet; it must be JSON."""
        if not self.done(name):
            started = time.monotonic()
            result = work()
            seconds = round(time.monotonic() - started, 3)
            self._state["steps"][name] = {"seconds": seconds, "result": result}
            self._write()
        return self.result(name)

    def _write(self) -> None:
        replace_text(self._path, json.dumps(self._state, indent=2) + "\n")
