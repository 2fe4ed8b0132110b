"""What is said of a draft or release that is not used. Apart, for those who load no model."""

from collections.abc import Iterator
from contextlib import contextmanager


class ReleaseError(Exception):
    """A draft or release is not what its manifest says, or is not one this program may use.

    stage: what opening it had come to: its manifest, files, parts, index or canaries.
    """

    stage: str = "manifest"


class GateRefusal(ReleaseError):  # noqa: N818  (a refusal is its name; the error is its base)
    """A sound draft that is too much worse, or too different, than the live release."""

    def __init__(self, draft: str, failures: list[str]) -> None:
        super().__init__(
            f"{draft}: refused by the gate: {'; '.join(failures)}; "
            "`python -m index publish --force` overrides"
        )
        self.failures = failures


@contextmanager
def stage_of_opening(name: str) -> Iterator[None]:
    try:
        yield
    except ReleaseError as error:
        error.stage = name
        raise


@contextmanager
def raising_release_error(what: str) -> Iterator[None]:
    """Make a ReleaseError of whatever a library says about content it cannot use."""
    try:
        yield
    except Exception as error:
        said = " ".join(str(error).split()) or type(error).__name__
        raise ReleaseError(f"{what} ({said:.300})") from error
