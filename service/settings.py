"""Every setting of the service: its type, default and meaning, in one table.

The command line, the environment and the documentation are all read from this class.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

PREFIX = "RE4_"
_SCHEMES = ("redis://", "rediss://", "unix://")


def _known_scheme(url: SecretStr) -> SecretStr:
    if not url.get_secret_value().startswith(_SCHEMES):
        raise ValueError(f"the URL must start with {', '.join(_SCHEMES[:-1])} or {_SCHEMES[-1]}")
    return url


# It may hold a password.
RedisUrl = Annotated[SecretStr, AfterValidator(_known_scheme)]


def _root(folder: Path) -> Path:
    """The folder given, or its parent where it is the releases/ that stands beside `current`."""
    # Names of index.release, which would load torch before its threads are limited.
    beside = (folder.parent / "current").is_file()
    return folder.parent if beside and folder.name == "releases" else folder


Root = Annotated[Path, AfterValidator(_root)]


class Settings(BaseSettings):
    """Read once, where the process starts; nothing else looks at the environment."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, env_ignore_empty=True, frozen=True, extra="forbid"
    )

    releases: Root = Field(description="folder that holds releases/ and current")
    host: str = Field("127.0.0.1", description="address to listen on")
    port: int = Field(8000, ge=0, le=65535, description="TCP port to listen on; 0 takes a free one")
    history: RedisUrl | None = Field(
        None,
        description="redis://, rediss:// or unix:// URL of the histories and events; "
        "without one, a Redis of our own runs in history-folder",
    )
    history_folder: Path | None = Field(
        None,
        description="where a Redis of our own keeps its data; without one, RELEASES/history",
    )
    history_items: int = Field(
        100, ge=1, le=1000, description="newest items kept, and read, for each user"
    )
    history_budget_ms: int = Field(
        50, ge=1, description="milliseconds that a call of Redis may take, connecting included"
    )
    history_failures: int = Field(
        5, ge=1, description="failed calls in a row after which Redis is left alone for a while"
    )
    history_pause_s: float = Field(
        1.0, gt=0, description="seconds for which Redis is left alone before it is tried again"
    )
    event_stream_length: int = Field(
        1_000_000, ge=1, description="newest events kept in Redis, about; older ones are dropped"
    )
    reload_interval_s: float = Field(
        1.0, gt=0, description="seconds between two looks at what `current` names"
    )
    queue_limit: int = Field(
        256, ge=1, description="requests that may wait for the engine; more are refused with 503"
    )
    batch_limit: int = Field(16, ge=1, description="requests that the engine answers in one go")
    deadline_ms: int = Field(
        1000, ge=1, description="milliseconds a request may wait for the engine before its 503"
    )
    drain_s: float = Field(
        3.0, ge=0, description="seconds between SIGTERM, which fails /readyz, and the last request"
    )
    admin_key: SecretStr | None = Field(
        None, description="key of POST /admin/reload, as a bearer token; without one, no such route"
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="least level of what is logged to stderr, one JSON object a line"
    )


@dataclass(frozen=True)
class Setting:
    """One line of the table: how it is given, and what it means."""

    name: str
    flag: str
    variable: str
    metavar: str
    default: str
    meaning: str
    is_secret: bool


def table() -> Iterator[Setting]:
    """Every setting, in order."""
    for name, field in Settings.model_fields.items():
        yield Setting(
            name=name,
            flag="--" + name.replace("_", "-"),
            variable=PREFIX + name.upper(),
            metavar=_METAVARS.get(field.annotation, "TEXT"),
            default="required" if field.is_required() else _shown(field.default),
            meaning=field.description or "",
            is_secret=name in _SECRETS,
        )


_SECRETS = ("admin_key", "history")
_METAVARS: dict[Any, str] = {int: "INTEGER", float: "NUMBER", Path: "FOLDER", Path | None: "FOLDER"}


def _shown(default: Any) -> str:
    return "none" if default is None else str(default)
