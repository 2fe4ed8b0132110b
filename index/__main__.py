"""python -m index build | publish | list | verify | rollback | prune. Results go to stdout."""

import json
import shlex
from pathlib import Path
from typing import Any

import click

import index.release.build
import index.release.listing
import index.release.publish
from index.release.errors import ReleaseError
from index.release.gate import Gate
from index.release.listing import ReleaseListing
from index.release.manifest import Manifest

_LISTED = ("recall@50", "ndcg@50")  # of the metrics, all of which are in the manifest


class _Number(click.FloatRange):
    """A range without NaN, which compares with nothing."""

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        number = float(super().convert(value, param, ctx))
        if number != number:
            self.fail(f"{value} is not a number", param, ctx)
        return number


_DEFAULT = Gate()
_SHARE = _Number(0, 1)


class _Commands(click.Group):
    """Refuses in one sentence and with exit code 1."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except (ReleaseError, OSError) as error:
            raise click.ClickException(str(error)) from error


@click.group(cls=_Commands, context_settings={"show_default": True})
def cli() -> None:
    """Build the index of a draft, publish drafts, and look after the releases.

    A root DIR holds drafts/, releases/ and the file `current`, which names the live release.
    """


_root = click.option(
    "--root", required=True, metavar="DIR", type=click.Path(path_type=Path), help="the root folder"
)
_draft = click.argument("draft", type=click.Path(path_type=Path))
_keep = click.option(
    "--keep",
    type=click.IntRange(min=1),
    default=index.release.publish.KEEP,
    help="newest releases to keep",
)


@cli.command()
@_draft
@click.option(
    "--recall",
    type=_Number(0, 1, min_open=True),
    default=0.95,
    help="share of exact search's merged top k that the index must return",
)
@click.option("--k", type=click.IntRange(min=1), default=50, help="items a request asks for")
def build(draft: Path, recall: float, k: int) -> None:
    """Give DRAFT the cheapest index that reaches the recall on held-out users' interests."""
    manifest = index.release.build.build(draft, recall, k, lambda said: click.echo(said, err=True))
    click.echo(_ann(manifest))
    click.echo(draft)


@cli.command()
@_draft
@click.option("--force", is_flag=True, help="publish what the gate refuses, if it verifies")
@click.option("--split", default=_DEFAULT.split, help="split of the metric that the gate compares")
@click.option("--metric", default=_DEFAULT.metric, help="offline metric that the gate compares")
@click.option(
    "--metric-drop",
    type=_SHARE,
    default=_DEFAULT.metric_drop,
    help="how far the metric may lie below the live release's, as a share of that",
)
@click.option(
    "--ann-recall",
    type=_SHARE,
    default=_DEFAULT.ann_recall,
    help="share of exact search's answer that the index must return",
)
@click.option(
    "--size-change",
    type=_Number(min=0),
    default=_DEFAULT.size_change,
    help="how far the number of items may lie from the live release's, as a share of that",
)
@_keep
def publish(draft: Path, force: bool, keep: int, **gate: Any) -> None:
    """Make DRAFT the live release. The last line is the release's path."""
    click.echo(index.release.publish.publish(draft, Gate(**gate), force, keep))


@cli.command(name="list")
@_root
def list_(root: Path) -> None:
    """List the releases, newest last; * is the live one."""
    for release in index.release.listing.list_releases(root):
        mark = "*" if release.current else " "
        told = release.problem or _summary(release)
        click.echo(f"{mark} {release.id}  {told}")


@cli.command()
@_root
@click.option("--url", default="http://127.0.0.1:8000", help="where the server will be")
def example(root: Path, url: str) -> None:
    """Print a curl that asks a server of the live release for candidates."""
    live = index.release.listing.live(root)
    sequence = live.canaries[0].history[-5:] if live.canaries else ()
    body = json.dumps({"sequence": sequence, "k": 5})
    request = f"curl -s {url}/recommend -H 'content-type: application/json' -d {shlex.quote(body)}"
    click.echo(request)


@cli.command()
@_root
@click.option("--to", metavar="ID", help="the release to verify; without it, all")
def verify(root: Path, to: str | None) -> None:
    """Check every byte of the releases and try their canary queries; exit code 1 if any is bad."""
    verdicts = index.release.listing.verify(root, to)
    for verdict in verdicts:
        click.echo(f"{verdict.id}: sound" if verdict.problem is None else verdict.problem)
    bad = sum(verdict.problem is not None for verdict in verdicts)
    click.echo(f"{len(verdicts)} verified, {bad} bad")
    if bad:
        raise click.exceptions.Exit(1)


@cli.command()
@_root
@click.option("--to", metavar="ID", help="the release to go back to; without it, the one before")
def rollback(root: Path, to: str | None) -> None:
    """Make an earlier release the live one. The last line is its path."""
    click.echo(index.release.publish.rollback(root, to))


@cli.command()
@_root
@_keep
def prune(root: Path, keep: int) -> None:
    """Delete old releases, but never the live one, its parent, or one that a server has open."""
    removed = index.release.publish.prune(root, keep)
    for release_id in removed:
        click.echo(f"{release_id}: deleted")
    click.echo(f"{len(removed)} deleted")


def _summary(release: ReleaseListing) -> str:
    manifest = release.manifest
    assert manifest is not None, "a listed release has a manifest or a problem; this is a bug"
    metrics = (
        f"{split} {metric} {value:.4f}"
        for split, values in manifest.metrics.items()
        for metric, value in values.items()
        if metric in _LISTED
    )
    return "  ".join(
        [
            f"{manifest.created:%Y-%m-%d %H:%M %Z}",
            f"{manifest.data.items:,} items",
            f"{release.size_bytes / 2**20:,.1f} MiB",
            _ann(manifest),
            *metrics,
        ]
    )


def _ann(manifest: Manifest) -> str:
    measured = manifest.index
    return f"{measured.spec.kind} ANN recall@{measured.k} {measured.recall:.4f}" if measured else ""


if __name__ == "__main__":
    cli(prog_name="python -m index")
