"""The kind and parameters of an index, and the measurements that chose it. Part of the manifest."""

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

Count = Annotated[int, Field(ge=1, lt=1 << 63)]  # JSON readers parse no larger integer
MilvusIndexType = Literal["HNSW", "IVF_FLAT", "DISKANN", "FLAT"]  # whose scores are exact
GPU_LIMIT = 2048  # of k and of probes, in faiss on a GPU


class Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class MilvusSpec(Record):
    """A collection of Milvus, and the parameters of its index.

    collection: named after the release, its vectors, categories and this index, so that another
    content has another name. build, search: as Milvus names them, such as M, and ef or nprobe.
    """

    collection: str = Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,254}$")
    index_type: MilvusIndexType
    build: dict[str, int] = Field(default_factory=dict)
    search: dict[str, int] = Field(default_factory=dict)


class IndexSpec(Record):
    """The kind of an index and all parameters to build and search it."""

    kind: Literal["flat", "ivf", "milvus"] = "flat"
    head: int = Field(0, ge=0, description="ivf: items that are scanned for every request")
    lists: int = Field(0, ge=0, description="ivf: lists of the other items")
    margin: float = Field(
        0.0,
        description="ivf: probe margin: assumed gap, in standard deviations, between a list's mean "
        "and its best item; a larger margin probes more lists",
    )
    probes: int = Field(
        0, ge=0, le=GPU_LIMIT, description="ivf on a GPU: lists that are probed for each interest"
    )
    milvus: MilvusSpec | None = Field(
        None, description="milvus: the collection", exclude_if=lambda spec: spec is None
    )

    @model_validator(mode="after")
    def _parameters_fit_kind(self) -> Self:
        given = self.model_fields_set - {"kind"}
        if self.kind == "flat" and given and self != IndexSpec():
            raise ValueError(f"a flat index takes no {', '.join(sorted(given))}; leave it out")
        if self.kind == "ivf" and not (self.lists and self.probes):
            raise ValueError("an ivf index needs lists and probes, both at least 1")
        if (self.kind == "milvus") != (self.milvus is not None):
            raise ValueError("a milvus index, and no other, needs its collection")
        return self


class TuningTrial(Record):
    """A candidate index, measured on the users that it was tuned on."""

    spec: IndexSpec
    recall: float
    microseconds: float


class IndexMeasurement(Record):
    """The chosen index, measured on held-out users' interests."""

    spec: IndexSpec
    recall: float = Field(
        description="share of exact search's merged top k that the index also returns"
    )
    k: Count
    queries: Count
    microseconds: float = Field(
        description="per request of K interests, one thread, on the building machine"
    )
    kernel: str | None = Field(
        None, description="kernel of the products when it was tuned; what is cheapest depends on it"
    )
    processor: str | None = Field(None, description="of the building machine")
    trials: tuple[TuningTrial, ...] = Field((), description="all candidates, the cheapest first")
