"""What kind of index was built, and what was measured of it."""

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

Count = Annotated[int, Field(ge=1, lt=1 << 63)]  # what is told as JSON can be no larger
LIMIT = 2048  # of k and of probes, in faiss on a GPU


class Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class IndexSpec(Record):
    """What kind of index, with every parameter that building and searching it needs."""

    kind: Literal["flat", "ivf"] = "flat"
    head: int = Field(0, ge=0, description="ivf: items that are scanned for every request")
    lists: int = Field(0, ge=0, description="ivf: lists that hold the other items")
    margin: float = Field(
        0.0,
        description="ivf: standard deviations that the best item of a list is taken to lie above "
        "its middle; the larger, the more lists are probed",
    )
    probes: int = Field(
        0, ge=0, le=LIMIT, description="ivf on a GPU: lists that are probed for each interest"
    )

    @model_validator(mode="after")
    def _fits_its_kind(self) -> Self:
        given = self.model_fields_set - {"kind"}
        if self.kind == "flat" and given and self != IndexSpec():
            raise ValueError(f"a flat index takes no {', '.join(sorted(given))}; leave it out")
        if self.kind == "ivf" and not (self.lists and self.probes):
            raise ValueError("an ivf index needs lists and probes, both at least 1")
        return self


class TuningTrial(Record):
    """An index that was tried, as measured on the users that it was tuned on."""

    spec: IndexSpec
    recall: float
    microseconds: float


class IndexMeasurement(Record):
    """What building the index found out on held-out users' interests."""

    spec: IndexSpec
    recall: float = Field(
        description="share of exact search's merged top k that the index also returns"
    )
    k: Count
    queries: Count
    microseconds: float = Field(
        description="per request of K interests, one thread, on the building machine"
    )
    trials: tuple[TuningTrial, ...] = Field((), description="what was tried, the cheapest first")
