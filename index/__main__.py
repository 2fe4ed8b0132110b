"""python -m index build | publish | list | example | verify | rollback | prune, and canaries."""

import json
import os
import shlex
import sys
from pathlib import Path

# Read when numpy is loaded. Times are of one thread, as in a server; where other programs run,
# threads of one product wait for each other, busily, many times as long as it takes.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from pydantic import Field
from pydantic_settings import CliPositionalArg, CliSubCommand, CliToggleFlag

import index.release.build
import index.release.canary_release
import index.release.listing
import index.release.publish
from index.ann.spec import MilvusIndexType
from index.cli import Program, run
from index.options import DraftCommand, EngineOptions, PublishOptions, RootCommand
from index.release.errors import ReleaseError
from index.release.gate import collapse_warnings
from index.release.listing import ReleaseListing
from index.release.manifest import DRAFTS, RELEASES, Manifest, is_release_id, read_manifest
from index.release.pruning import KEEP

_LISTED_METRICS = ("recall@50", "ndcg@50")  # the manifest has all of them


class Build(EngineOptions, DraftCommand):
    """Give DRAFT the cheapest index that reaches the recall on held-out users' interests."""

    recall: float = Field(
        0.95,
        gt=0,
        le=1,
        description="share of exact search's merged top k that the index must return",
    )
    k: int = Field(50, ge=1, description="items per request")
    engine_index: MilvusIndexType = Field("HNSW", description="milvus: type of its index")

    def cli_cmd(self) -> None:
        with self.opened_engine() as engine:
            manifest = index.release.build.build(
                self.draft, self.recall, self.k, _log, engine, self.engine_index
            )
        print(_ann_summary(manifest))
        print(self.draft)


class Publish(PublishOptions, EngineOptions, DraftCommand):
    """Make DRAFT the live release. The last line is the release's path."""

    def cli_cmd(self) -> None:
        with self.opened_engine() as engine:
            folder = index.release.publish.publish(
                self.draft, self.gate, self.force, self.keep, engine=engine
            )
        for warning in collapse_warnings(read_manifest(folder)):
            _log(f"warning: {warning}")
        print(folder)


class ListReleases(RootCommand):
    """List the releases, newest last; * is the live one, + the canary."""

    def cli_cmd(self) -> None:
        releases = index.release.listing.list_releases(self.root)
        if not releases:
            drafts = len([*(self.root / DRAFTS).glob("[!.]*")])
            _log(f"{self.root}: no release; publish one of {drafts} drafts")
        for release in releases:
            mark = "*" if release.current else "+" if release.canary else " "
            print(f"{mark} {release.id}  {release.problem or _summary(release)}")


class Example(RootCommand):
    """Print a curl command that asks a server of the live release for candidates."""

    url: str = Field("http://127.0.0.1:8000", description="URL of the server")

    def cli_cmd(self) -> None:
        live = index.release.listing.read_live_manifest(self.root)
        sequence = live.canaries[0].history[-5:] if live.canaries else ()
        body = shlex.quote(json.dumps({"sequence": sequence, "k": 5}))
        print(f"curl -s {self.url}/recommend -H 'content-type: application/json' -d {body}")


class Verify(EngineOptions, RootCommand):
    """Check every byte of the releases and their canary queries; exit code 1 if one is bad."""

    to: str | None = Field(None, description="id of the release to verify; without it, all")

    def cli_cmd(self) -> None:
        with self.opened_engine() as engine:
            results = index.release.listing.verify(self.root, self.to, engine)
        for result in results:
            print(f"{result.id}: sound" if result.problem is None else result.problem)
        bad = sum(result.problem is not None for result in results)
        print(f"{len(results)} verified, {bad} bad")
        if bad:
            raise SystemExit(1)


class Rollback(EngineOptions, RootCommand):
    """Make an earlier release the live one. The last line is its path."""

    to: str | None = Field(
        None, description="id of the release to go back to; without it, the one before"
    )

    def cli_cmd(self) -> None:
        with self.opened_engine() as engine:
            print(index.release.publish.rollback(self.root, self.to, engine))


class Canary(PublishOptions, EngineOptions):
    """Let a draft or a release answer a share of the users. The last line is the release's path.

    A draft has to pass the gate, as for `publish`.
    """

    release: CliPositionalArg[str] = Field(
        description="a folder <root>/drafts/<id> or <root>/releases/<id>, or an id of --root"
    )
    share: float = Field(gt=0, le=1, description="share of the users")
    shadow: CliToggleFlag[bool] = Field(
        False, description="ask it besides the live release, and never show its answers"
    )
    root: Path = Field(Path(), description="the root folder of an id")

    def cli_cmd(self) -> None:
        folder = self._folder.absolute()
        with self.opened_engine() as engine:
            if folder.parent.name == DRAFTS:
                folder = index.release.canary_release.publish_canary(
                    folder,
                    self.share,
                    self.shadow,
                    self.gate,
                    self.force,
                    self.keep,
                    engine=engine,
                )
            else:
                folder = index.release.canary_release.start_canary(
                    folder.parent.parent, folder.name, self.share, self.shadow, engine
                )
        print(folder)

    @property
    def _folder(self) -> Path:
        """The folder of the draft or the release. An id that both have is the release's."""
        if not is_release_id(self.release):
            return Path(self.release)
        release, draft = (self.root / name / self.release for name in (RELEASES, DRAFTS))
        return draft if draft.is_dir() and not release.is_dir() else release


class Promote(EngineOptions, RootCommand):
    """Make the canary the live release. The last line is its path."""

    def cli_cmd(self) -> None:
        with self.opened_engine() as engine:
            print(index.release.canary_release.promote(self.root, engine))


class Abort(RootCommand):
    """End the canary; its release stays, and the live one answers everyone."""

    def cli_cmd(self) -> None:
        print(f"{index.release.canary_release.abort(self.root) or 'a damaged canary'}: aborted")


class Prune(EngineOptions, RootCommand):
    """Delete old releases, but not the live one, its parent, the canary, or one that is open."""

    keep: int = Field(KEEP, ge=1, description="newest releases to keep")

    def cli_cmd(self) -> None:
        with self.opened_engine() as engine:
            removed = index.release.publish.prune(self.root, self.keep, engine)
        for release_id in removed:
            print(f"{release_id}: deleted")
        print(f"{len(removed)} deleted")


class Index(Program, cli_prog_name="python -m index"):
    """Build the index of a draft, publish drafts, and manage the releases.

    A root folder holds drafts/, releases/ and the file `current`, which names the live release.
    """

    build: CliSubCommand[Build]
    publish: CliSubCommand[Publish]
    list_: CliSubCommand[ListReleases] = Field(alias="list")
    example: CliSubCommand[Example]
    verify: CliSubCommand[Verify]
    rollback: CliSubCommand[Rollback]
    canary: CliSubCommand[Canary]
    promote: CliSubCommand[Promote]
    abort: CliSubCommand[Abort]
    prune: CliSubCommand[Prune]


def main(arguments: list[str] | None = None) -> None:
    """Results go to stdout, progress and errors to stderr."""
    run(Index, arguments, expected=(ReleaseError, OSError))


def _log(message: str) -> None:
    print(message, file=sys.stderr)


def _summary(release: ReleaseListing) -> str:
    manifest = release.manifest
    assert manifest is not None, "a listed release has a manifest or a problem; this is a bug"
    metrics = (
        f"{split} {metric} {value:.4f}"
        for split, values in manifest.metrics.items()
        for metric, value in values.items()
        if metric in _LISTED_METRICS
    )
    return "  ".join(
        [
            f"{manifest.created:%Y-%m-%d %H:%M %Z}",
            f"{manifest.data.items:,} items",
            f"{release.size_bytes / 2**20:,.1f} MiB",
            _ann_summary(manifest),
            *metrics,
        ]
    )


def _ann_summary(manifest: Manifest) -> str:
    measurement = manifest.index
    if measurement is None:
        return ""
    return f"{measurement.spec.kind} ANN recall@{measurement.k} {measurement.recall:.4f}"


if __name__ == "__main__":
    main()
