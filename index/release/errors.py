"""Errors of drafts and releases. In a module of its own, for programs that load no model."""

from collections.abc import Iterator
from contextlib import contextmanager


class ReleaseError(Exception):
    """A draft or release differs from its manifest, or this program cannot use it.

    stage: where opening it failed: its manifest, files, parts, index or canaries.
    """

    stage: str = "manifest"


class GateRefusal(ReleaseError):  # noqa: N818  (the gate refuses; the base class is the error)
    """A sound draft that is too much worse, or too different, than the live release.

    command: of `python -m index`, without --force.
    """

    def __init__(self, draft: str, failures: list[str], command: str = "publish") -> None:
        super().__init__(
            f"{draft}: refused by the gate: {'; '.join(failures)}; "
            f"`python -m index {command} --force` overrides"
        )
        self.draft = draft
        self.failures = failures


@contextmanager
def opening_stage(name: str) -> Iterator[None]:
    """Set the stage of a ReleaseError that the block raises."""
    try:
        yield
    except ReleaseError as error:
        error.stage = name
        raise


@contextmanager
def as_release_error(problem: str) -> Iterator[None]:
    """Turn any error of the block, such as a library's, into a ReleaseError of one sentence."""
    try:
        yield
    except Exception as error:
        cause = " ".join(str(error).split()) or type(error).__name__
        raise ReleaseError(f"{problem} ({cause:.300})") from error
