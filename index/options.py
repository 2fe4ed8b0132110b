"""Options that several commands of `python -m index` have."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

from pydantic import BaseModel, Field, model_validator
from pydantic_settings import CliPositionalArg, CliToggleFlag

from index.ann.engine_names import EngineName, check_engine
from index.ann.milvus_engine import MilvusEngine
from index.release.gate import DEFAULT_GATE, Gate
from index.release.pruning import KEEP


class DraftCommand(BaseModel):
    draft: CliPositionalArg[Path] = Field(description="a folder <root>/drafts/<id>")


class RootCommand(BaseModel):
    root: Path = Field(description="the root folder")


class EngineOptions(BaseModel):
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


class PublishOptions(BaseModel):
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

    @property
    def gate(self) -> Gate:
        return Gate(
            split=self.split,
            metric=self.metric,
            metric_drop=self.metric_drop,
            ann_recall=self.ann_recall,
            size_change=self.size_change,
            popularity_drop=self.popularity_drop,
            distinct_share=self.distinct_share,
        )
