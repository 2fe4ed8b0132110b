"""Every setting of the service: its type, default and meaning, in one table.

The command line, the environment and the documentation are all read from this class.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, SecretStr, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

PREFIX = "RE4_"
MAX_K = 1000  # the API's limit of k


def _address(url: SecretStr) -> SecretStr:
    from service.store.redis_url import parse_url

    parse_url(url.get_secret_value())
    return url


# It may hold a password.
RedisUrl = Annotated[SecretStr, AfterValidator(_address)]


def _root(folder: Path) -> Path:
    """The folder given, or its parent where it is the releases/ that stands beside `current`."""
    # Names of index.release, which would load torch before its threads are limited.
    beside = (folder.parent / "current").is_file()
    return folder.parent if beside and folder.name == "releases" else folder


Root = Annotated[Path, AfterValidator(_root)]


def _rate(text: str) -> str:
    # Not at the top: a client reads MAX_K, and has none of the server's libraries.
    from limits import parse

    try:
        parse(text)
    except ValueError:
        raise ValueError("a rate is like 1000/second, 50/minute or 10/5 seconds") from None
    return text


Rate = Annotated[str, AfterValidator(_rate)]


def _origins(text: str) -> str:
    for origin in text.split(","):
        if origin != "*" and not origin.startswith(("http://", "https://")):
            raise ValueError("each origin must be like https://shop.example, or * for all")
    return text


Origins = Annotated[str, AfterValidator(_origins)]


def _device(name: str) -> str:
    if not re.fullmatch(r"cpu|cuda:\d+", name):
        raise ValueError("a device is cpu, or cuda: and a number, such as cuda:0")
    return name


Device = Annotated[str, AfterValidator(_device)]


class SetupError(Exception):
    """What the settings name cannot be used; the text says why, and what to do."""


class Settings(BaseSettings):
    """Read once, where the process starts; nothing else looks at the environment."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_ignore_empty=True,
        frozen=True,
        extra="forbid",
        hide_input_in_errors=True,  # which may hold a password
    )

    releases: Root = Field(description="folder that holds releases/ and current")
    host: str = Field("127.0.0.1", description="address to listen on")
    port: int = Field(8000, ge=0, le=65535, description="TCP port to listen on; 0 takes a free one")
    workers: int = Field(1, ge=1, le=256, description="processes that answer, a core for each")
    keys_file: Path | None = Field(
        None,
        description="file of API keys, as `python -m service new-key` prints them; "
        "without one, whoever comes may do all but administration",
    )
    open: bool = Field(
        False, description="serve without keys on an address that is not of this machine alone"
    )
    open_metrics: bool = Field(False, description="GET /metrics takes no key where the rest does")
    rate_limit: Rate | None = Field(
        None,
        description="requests that one key may send, or one address where there are no keys, to "
        "each worker, such as 1000/second",
    )
    cors_origins: Origins | None = Field(
        None, description="web origins whose pages may call the service, with commas between them"
    )
    history: RedisUrl | None = Field(
        None,
        description="URL of the Redis that holds histories and events: redis://, rediss://, "
        "unix://, redis+sentinel://HOST:PORT,HOST:PORT/NAME or "
        "redis+cluster://HOST:PORT,HOST:PORT; without one, a Redis of our own runs in "
        "history-folder",
    )
    history_file: Path | None = Field(
        None, description="file that holds the URL of `history`, which then no process list shows"
    )
    history_password: SecretStr | None = Field(
        None, description="password of that Redis, where none is to stand in its URL"
    )
    history_password_file: Path | None = Field(
        None, description="file that holds the history-password"
    )
    history_folder: Path | None = Field(
        None,
        description="where a Redis of our own keeps its data; without one, RELEASES/history",
    )
    history_items: int = Field(
        100, ge=1, le=1000, description="newest items kept, and read, for each user"
    )
    history_days: float = Field(
        180, gt=0, le=36_500, description="days without an event after which a history is dropped"
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
    event_memory_hours: float = Field(
        24,
        gt=0,
        le=87_600,
        description="hours for which an event is known by its event_id, and not taken again; and "
        "in which what happened before a user was forgotten is not taken either",
    )
    new_items: int = Field(
        1000,
        ge=0,
        le=10_000,
        description="items unknown to the release that are offered, those that most users took; "
        "0 offers none",
    )
    new_item_users: int = Field(
        2, ge=1, le=50, description="users who have to have taken such an item before it is offered"
    )
    new_item_hours: float = Field(
        48, gt=0, le=8760, description="hours for which it counts that a user took such an item"
    )
    reload_interval_s: float = Field(
        1.0, gt=0, description="seconds between two looks at what `current` names"
    )
    device: Device = Field(
        "cpu",
        description="what items are searched on: cpu, or cuda:0 and so on, which takes a GPU and "
        "the extra gpu",
    )
    queue_limit: int = Field(
        256, ge=1, description="requests that may wait for the engine; more are refused with 503"
    )
    batch_limit: int = Field(16, ge=1, description="requests that the engine answers in one go")
    deadline_ms: int = Field(
        250, ge=1, description="milliseconds in which a request is answered, or refused with 503"
    )
    union_share: float = Field(
        0.002,
        ge=0,
        le=1,
        description="share of the requests for which it is measured how many distinct items the "
        "interests find, at the cost of a search for each",
    )
    drain_s: float = Field(
        3.0, ge=0, description="seconds between SIGTERM, which fails /readyz, and the last request"
    )
    admin_key: SecretStr | None = Field(
        None,
        description="a key of the role admin, as a bearer token; "
        "without it and keys-file, no routes of administration",
    )
    admin_key_file: Path | None = Field(None, description="file that holds the admin-key")
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="least level of what is logged to stderr, one JSON object a line"
    )
    access_log: bool = Field(False, description="log a line for each request")
    tracing: Literal["otlp", "console"] | None = Field(
        None,
        description="send OpenTelemetry traces to stdout (console) or, over HTTP, to where "
        "OTEL_EXPORTER_OTLP_ENDPOINT says (otlp); needs the extra tracing",
    )

    @model_validator(mode="before")
    @classmethod
    def _read_secrets(cls, given: Any) -> Any:
        for name in _SECRETS:
            file = given.get(f"{name}_file")
            if file is None:
                continue
            if given.get(name) is not None:
                raise ValueError(f"{_flag(name)} and {_flag(name)}-file: both given; give one")
            try:
                given = {**given, name: Path(file).read_text(encoding="utf-8").strip()}
            except (OSError, UnicodeDecodeError) as error:
                raise ValueError(f"{_flag(name)}-file: cannot be read ({error})") from None
            if not given[name]:
                raise ValueError(f"{_flag(name)}-file: {file} is empty; write the secret there")
        return given

    @model_validator(mode="after")
    def _closed_to_the_world(self) -> Self:
        if not (self.open or self.keys_file or _is_loopback(self.host)):
            raise ValueError(
                f"--host: {self.host} can be reached from other machines, and no keys are asked "
                "for; give --keys-file, or --open to serve whoever comes"
            )
        return self

    @property
    def has_administration(self) -> bool:
        return bool(self.admin_key or self.keys_file)


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


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
    is_switch: bool


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def table() -> Iterator[Setting]:
    """Every setting, in order."""
    for name, field in Settings.model_fields.items():
        yield Setting(
            name=name,
            flag=_flag(name),
            variable=PREFIX + name.upper(),
            metavar="FILE" if name.endswith("_file") else _METAVARS.get(field.annotation, "TEXT"),
            default="required" if field.is_required() else _shown(field.default),
            meaning=field.description or "",
            is_secret=name in _SECRETS,
            is_switch=field.annotation is bool,
        )


_SECRETS = ("admin_key", "history", "history_password")
_METAVARS: dict[Any, str] = {int: "INTEGER", float: "NUMBER", Path: "FOLDER", Path | None: "FOLDER"}


def _shown(default: Any) -> str:
    if isinstance(default, bool):
        return str(default).lower()
    return "none" if default is None else str(default)
