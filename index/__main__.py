"""python -m index build | publish | list | example | verify | rollback | prune."""

import json
import os
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

# Read when numpy is loaded. Times are of one thread, as in a server; where other programs run,
# threads of one product wait for each other, busily, many times as long as it takes.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from pydantic import BaseModel, Field, model_validator
from pydantic_settings import CliPositionalArg, CliSubCommand, CliToggleFlag

import index.release.build
import index.release.listing
import index.release.publish
from index.ann.engine_names import EngineName, check_engine
from index.ann.milvus_engine import MilvusEngine
from index.ann.spec import MilvusIndexType
from index.cli import Program, run
from index.release.errors import ReleaseError
from index.release.gate import DEFAULT_GATE, Gate, collapse_warnings
from index.release.listing import ReleaseListing
from index.release.manifest import DRAFTS, Manifest, read_manifest
from index.release.publish import KEEP

_LISTED_METRICS = ("recall@50", "ndcg@50")  # the manifest has all of them


class _DraftCommand(BaseModel):
    draft: CliPositionalArg[Path] = Field(description="a folder <root>/drafts/<id>")


class _RootCommand(BaseModel):
    root: Path = Field(description="the root folder")


class _EngineOptions(BaseModel):
    engine: EngineName = Field(
        "faiss",
        description="faiss: indexes in files of their release; milvus: in collections of a Milvus",
    )
    engine_uri: str | None = Field(
        None,
        description="the Milvus: http://HOST:19530/DATABASE, or a local path that ends with .db "
        "for milvus-lite in this process",
    )

    @model_validator(mode="after")
    def _uri_fits_engine(self) -> Self:
        check_engine(self.engine, self.engine_uri)
        return self

    @contextmanager
    def opened_engine(self) -> Iterator[MilvusEngine | None]:
        if self.engine_uri is None:
            yield None
            return
        engine = MilvusEngine(self.engine_uri)
        try:
            yield engine
        finally:
            engine.close()


class Build(_EngineOptions, _DraftCommand):
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


class Publish(_EngineOptions, _DraftCommand):
    """Make DRAFT the live release. The last line is the release's path."""

    force: CliToggleFlag[bool] = Field(
        False, description="publish a draft that verifies even if the gate refuses it"
    )
    split: str = Field(DEFAULT_GATE.split, description="split of the metric that the gate compares")
    metric: str = Field(DEFAULT_GATE.metric, description="offline metric that the gate compares")
    metric_drop: float = Field(
        DEFAULT_GATE.metric_drop,
        ge=0,
        le=1,
        description="largest allowed drop of the metric, as a share of the live release's",
    )
    ann_recall: float = Field(
        DEFAULT_GATE.ann_recall,
        ge=0,
        le=1,
        description="lowest allowed share of exact search's answer that the index returns",
    )
    size_change: float = Field(
        DEFAULT_GATE.size_change,
        ge=0,
        description="largest allowed change of the number of items, as a share of the live "
        "release's",
    )
    popularity_drop: float = Field(
        DEFAULT_GATE.popularity_drop,
        ge=0,
        le=1,
        description="share of popularity's metric by which the draft's may be below it",
    )
    distinct_share: float | None = Field(
        DEFAULT_GATE.distinct_share,
        ge=0,
        le=1,
        description="lowest allowed share of distinct items among the lists of the K interests; "
        "none refuses nothing",
    )
    keep: int = Field(KEEP, ge=1, description="newest releases to keep")

    def cli_cmd(self) -> None:
        gate = Gate(
            split=self.split,
            metric=self.metric,
            metric_drop=self.metric_drop,
            ann_recall=self.ann_recall,
            size_change=self.size_change,
            popularity_drop=self.popularity_drop,
            distinct_share=self.distinct_share,
        )
        with self.opened_engine() as engine:
            folder = index.release.publish.publish(
                self.draft, gate, self.force, self.keep, engine=engine
            )
        for warning in collapse_warnings(read_manifest(folder)):
            _log(f"warning: {warning}")
        print(folder)


class ListReleases(_RootCommand):
    """List the releases, newest last; * is the live one."""

    def cli_cmd(self) -> None:
        releases = index.release.listing.list_releases(self.root)
        if not releases:
            drafts = len([*(self.root / DRAFTS).glob("[!.]*")])
            _log(f"{self.root}: no release; publish one of {drafts} drafts")
        for release in releases:
            mark = "*" if release.current else " "
            print(f"{mark} {release.id}  {release.problem or _summary(release)}")


class Example(_RootCommand):
    """Print a curl command that asks a server of the live release for candidates."""

    url: str = Field("http://127.0.0.1:8000", description="URL of the server")

    def cli_cmd(self) -> None:
        live = index.release.listing.read_live_manifest(self.root)
        sequence = live.canaries[0].history[-5:] if live.canaries else ()
        body = shlex.quote(json.dumps({"sequence": sequence, "k": 5}))
        print(f"curl -s {self.url}/recommend -H 'content-type: application/json' -d {body}")


class Verify(_EngineOptions, _RootCommand):
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


class Rollback(_EngineOptions, _RootCommand):
    """Make an earlier release the live one. The last line is its path."""

    to: str | None = Field(
        None, description="id of the release to go back to; without it, the one before"
    )

    def cli_cmd(self) -> None:
        with self.opened_engine() as engine:
            print(index.release.publish.rollback(self.root, self.to, engine))


class Prune(_EngineOptions, _RootCommand):
    """Delete old releases, but never the live one, its parent, or one that a server has open."""

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
