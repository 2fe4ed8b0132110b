"""How a log is read, filtered, split and evaluated on: the part of a fit's settings that the data
needs."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ByteSize, ConfigDict, Field, field_validator

from index.event_kinds import EventKinds
from training.data.columns import ROLES
from training.data.former_names import with_current_names
from training.data.splits import ProtocolName

_MAX_EVENT_WEIGHT = 1e6
_SEPARATORS = {"tab": "\t", "\\t": "\t", "comma": ",", "semicolon": ";", "pipe": "|", "space": " "}


class LogSource(BaseModel):
    """How the files of a log are read. Descriptions are the command line's help."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: str = Field(
        "auto", description="file format of the log; auto detects it from name and content"
    )
    columns: tuple[str, ...] = Field(
        (),
        description="columns or JSON keys of the log by role, such as "
        "user=visitorid,item=sku,time=at; also event and weight; time=# is the order of the rows",
    )
    column_names: tuple[str, ...] = Field(
        (), description="names of all columns, for a file that has no header line"
    )
    separator: str | None = Field(
        None, description="separator of the fields: one character, or tab, semicolon, pipe"
    )
    time_unit: Literal["s", "ms", "us", "ns"] | None = Field(
        None, description="unit of times that are numbers, which become seconds; none keeps them"
    )
    skip_bad_rows: int = Field(
        0, ge=0, description="maximum number of rows that are left out because they cannot be used"
    )
    max_user_interactions: int | None = Field(
        None, ge=1, description="newest interactions of a user to keep; none means all"
    )
    event_weights: tuple[str, ...] = Field(
        (),
        description="weights of interactions as targets by event type, such as "
        "view=0.2,purchase=1; a type that is not named has 1, one of 0 is in histories alone",
    )

    event_effects: tuple[str, ...] = Field(
        (),
        description="what events of each type do, such as dislike=exclude,return=undo: history, "
        "undo (take the newest event on the item back) or, to be left out, exclude, shown or none; "
        "types that are not named keep theirs, see the service's setting of this name",
    )

    # How a log is read says nothing of what is read: it is not stored, and is no part of a run.
    log_engine: Literal["auto", "memory", "duckdb"] = Field(
        "auto",
        description="what sorts and filters the log: memory, or DuckDB, which needs the extra "
        "large-logs and keeps the log in files; auto takes it for what would not fit in memory",
        exclude=True,
    )
    memory_limit: ByteSize | None = Field(
        None,
        ge=1 << 29,
        description="memory for a log, such as 4GiB, at least 512MiB; none means what is free, "
        "within the limit of the cgroup",
        exclude=True,
    )
    spill_directory: Path | None = Field(
        None,
        description="existing folder for the files of a log that DuckDB reads, some 60 bytes an "
        "interaction; none means the system's for temporary files",
        exclude=True,
    )

    @field_validator("columns", "event_weights", "event_effects", mode="before")
    @classmethod
    def _to_parts(cls, given: Any) -> Any:
        """Also from `user=a,item=b`, or a table."""
        if isinstance(given, str):
            return tuple(given.split(","))
        if isinstance(given, Mapping):
            return tuple(f"{key}={value}" for key, value in given.items())
        return given

    @field_validator("columns")
    @classmethod
    def _check_roles(cls, columns: tuple[str, ...]) -> tuple[str, ...]:
        names: dict[str, str] = {}
        for part in columns:
            role, _, name = part.partition("=")
            role = role.strip()
            if role not in ROLES or not name:
                raise ValueError(
                    f"{part!r} is not ROLE=NAME; the roles are {', '.join(ROLES)}, separated by "
                    "commas, such as user=visitorid,item=itemid"
                )
            if role in names:
                raise ValueError(f"two columns for {role}: {names[role]} and {name}; give one")
            names[role] = name
        return tuple(f"{role}={names[role]}" for role in ROLES if role in names)

    @property
    def names_by_role(self) -> dict[str, str]:
        """The columns that were named."""
        parts = (part.partition("=") for part in self.columns)
        return {role: name for role, _, name in parts}

    @field_validator("event_weights")
    @classmethod
    def _check_weights(cls, parts: tuple[str, ...]) -> tuple[str, ...]:
        weights: dict[str, float] = {}
        for part in parts:
            name, _, number = part.rpartition("=")
            name, weight = name.strip(), _to_number(number)
            if not name or weight is None or not 0 <= weight <= _MAX_EVENT_WEIGHT:
                raise ValueError(
                    f"{part!r} is not TYPE=WEIGHT; a weight is a number from 0 to "
                    f"{_MAX_EVENT_WEIGHT:,.0f}, such as in view=0.2,purchase=1"
                )
            if name in weights:
                raise ValueError(
                    f"two weights for {name}: {weights[name]:g} and {weight:g}; give one"
                )
            weights[name] = weight
        return tuple(f"{name}={weight!r}" for name, weight in sorted(weights.items()))

    @property
    def weights_by_event(self) -> dict[str, float]:
        """The weights of the event types that were named."""
        parts = (part.rpartition("=") for part in self.event_weights)
        return {name: float(weight) for name, _, weight in parts}

    @field_validator("event_effects")
    @classmethod
    def _check_effects(cls, parts: tuple[str, ...]) -> tuple[str, ...]:
        effects = EventKinds.of(parts).parts
        return () if effects == EventKinds.of(()).parts else effects

    @property
    def event_kinds(self) -> EventKinds:
        return EventKinds.of(self.event_effects)

    @field_validator("separator")
    @classmethod
    def _to_character(cls, separator: str | None) -> str | None:
        separator = _SEPARATORS.get(separator or "", separator)
        if separator is not None and (len(separator) != 1 or separator in '"\r\n'):
            names = ", ".join(name for name in _SEPARATORS if name.isalpha())
            raise ValueError(f"{separator!r} is not one character; give one, or {names}")
        return separator


def _to_number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


class LogOptions(LogSource):
    """The settings of a log."""

    event_types: tuple[str, ...] = Field(
        (), description="event types to keep; without it, all are kept"
    )
    min_weight: float | None = Field(
        None, description="minimum weight (rating) of an interaction to keep"
    )
    min_user_interactions: int = Field(
        5, ge=1, description="users with fewer interactions are left out (k-core)"
    )
    min_item_interactions: int = Field(
        5, ge=1, description="items with fewer interactions are left out (k-core)"
    )
    split: ProtocolName = Field("unseen-users", description="evaluation protocol")
    test_fraction: float = Field(
        0.1, gt=0, lt=0.5, description="share of users for test, and as many again for validation"
    )
    split_seed: int = Field(0, description="seed of the draw of test and validation users")
    popularity_days: float | None = Field(
        28.0,
        gt=0,
        description="days at the end of the training part whose best sellers are compared with, "
        "beside those of all its time; none leaves them out, as does a log without times",
    )
    exclude_seen: bool = Field(
        True,
        description="leave the items of the history out of the results: in evaluation, and in the "
        "service where a request does not say; false for shops of repeat purchases",
    )

    @classmethod
    def from_stored(cls, settings: Mapping[str, Any]) -> Self:
        """Those settings of a manifest or a report that this class has; former names are read too.

        Settings that it does not have are ignored. Raises ValidationError for a value not allowed.
        """
        current = with_current_names(settings)
        return cls.model_validate({n: current[n] for n in cls.model_fields if n in current})
