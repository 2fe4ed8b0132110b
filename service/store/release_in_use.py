"""What the store needs of the release in use."""

from typing import Protocol

from index.release.reading import Release


class ReleaseInUse(Protocol):
    @property
    def release(self) -> Release | None:
        """The release in use, or None before the first."""
        ...
