"""Every setting of the service: its type, default and meaning, in one class.

Command line, environment, TOML file, secrets and documentation are all read from it.
"""

from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, SecretStr, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from index.ann.engine_names import check_engine
from service.settings_canary import CanarySettings
from service.settings_engine import EngineSettings
from service.settings_events import EventSettings
from service.settings_sources import (
    PREFIX,
    ConfigFile,
    Environment,
    SecretsFolder,
    with_secret_files,
)
from service.settings_types import (
    Hosts,
    KeyPrefix,
    Origins,
    Proxies,
    Rate,
    Root,
    RootPath,
    is_loopback,
)

MAX_K = 1000  # the API's limit of k
# One of these is in each folder of releases.
_OF_A_ROOT = ("current", "releases", "drafts")


class SetupError(Exception):
    """The service cannot be set up as the settings say; the text says why, and what to do."""


def check_root(folder: Path) -> None:
    """Raises SetupError unless the folder holds releases or drafts.

    Otherwise a mistyped name would be created, with a Redis in it.
    """
    if not any((folder / name).exists() for name in _OF_A_ROOT):
        what = "holds no releases and no drafts" if folder.is_dir() else "no such folder"
        raise SetupError(
            f"--releases: {folder}: {what}; give the folder that `python -m training fit` and "
            "`python -m index publish` were given as --root"
        )


class StoreSettings(BaseSettings):
    """Where releases and Redis are: the settings that the service and its commands share."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_ignore_empty=True,
        frozen=True,
        extra="forbid",
        hide_input_in_errors=True,  # which may hold a password
        cli_prog_name="python -m service",
        cli_kebab_case=True,
        cli_implicit_flags="toggle",
        cli_hide_none_type=True,
        cli_avoid_json=True,
        cli_show_env_vars=True,
        cli_exit_on_error=False,
    )

    releases: Root = Field(description="folder that holds releases/ and current")
    config: Path | None = Field(None, description="TOML file of settings, by their names")
    secrets_dir: Path | None = Field(
        None, description="folder of secrets: files named like the variables, such as re4_admin_key"
    )
    redis_url: SecretStr | None = Field(
        None,
        description="URL of the Redis for histories and events: redis://, rediss://, unix://, "
        "redis+sentinel://HOST:PORT,HOST:PORT/NAME or redis+cluster://HOST:PORT,HOST:PORT; "
        "without one, an embedded Redis runs in embedded-redis-folder",
    )
    redis_url_file: Path | None = Field(
        None, description="file that holds redis-url, so that no process list shows it"
    )
    redis_password: SecretStr | None = Field(
        None, description="password of Redis, if its URL holds none"
    )
    redis_password_file: Path | None = Field(None, description="file that holds redis-password")
    redis_prefix: KeyPrefix = Field(
        "re4",
        description="first part of every key in Redis; another for each shop on one Redis",
    )
    embedded_redis_folder: Path | None = Field(
        None, description="data folder of the embedded Redis; without one, RELEASES/history"
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="lowest level logged to stderr, one JSON object per line"
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        *_: PydanticBaseSettingsSource,
        **__: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """After the command line: environment, TOML file, secrets; the first that has a value."""
        # The commands read the same file, each with some of the settings.
        config = ConfigFile(settings_cls, ignored=Settings.model_fields)
        return (init_settings, Environment(settings_cls), config, SecretsFolder(settings_cls))

    @model_validator(mode="before")
    @classmethod
    def _read_secret_files(cls, given: Any) -> Any:
        return with_secret_files(given, SECRETS)

    def replaced(self, **changes: Any) -> Self:
        """A copy with other values, which are not validated. Raises TypeError for unknown names,
        which `model_copy` takes, so that nothing changes."""
        if unknown := changes.keys() - type(self).model_fields.keys():
            raise TypeError(f"no such setting: {', '.join(sorted(unknown))}")
        return self.model_copy(update=changes)


SECRETS = ("admin_key", "redis_url", "redis_password", "engine_uri")


class Settings(EngineSettings, CanarySettings, EventSettings, StoreSettings):
    """Serve the release that RELEASES/current names over HTTP, and each that it comes to name.

    Commands: python -m service new-key | export-events | settings (with --help for each).
    """

    tenants: Path | None = Field(
        None,
        description="TOML file of several shops to serve below /t/NAME/, each with its releases "
        "and other settings of its own; in place of releases",
    )
    host: str = Field("127.0.0.1", description="address to listen on")
    root_path: RootPath = Field(
        "", description="path that a proxy in front takes off, such as /candidates"
    )
    port: int = Field(8000, ge=0, le=65535, description="TCP port to listen on; 0 takes a free one")
    workers: int = Field(1, ge=1, le=256, description="server processes, one core each")
    keys_file: Path | None = Field(
        None,
        description="file of API keys, as `python -m service new-key` prints them; "
        "without it, non-admin endpoints need no key",
    )
    allow_anonymous: bool = Field(
        False, description="serve without API keys on an address other machines can reach"
    )
    allow_anonymous_metrics: bool = Field(
        False, description="GET /metrics needs no key, even with keys-file"
    )
    admin_key: SecretStr | None = Field(
        None,
        description="key with the role admin, sent as a bearer token; "
        "without it and keys-file, there are no admin endpoints",
    )
    admin_key_file: Path | None = Field(None, description="file that holds admin-key")
    rate_limit: Rate | None = Field(
        None,
        description="most requests to each worker per key, or per client address without a valid "
        "one, such as 1000/second; each entry of a batch or list counts",
    )
    trusted_proxies: Proxies | None = Field(
        None,
        description="addresses or networks of the proxies in front, separated by commas, such as "
        "10.0.0.0/8; only from them X-Forwarded-For names the client",
    )
    allowed_hosts: Hosts | None = Field(
        None,
        description="host names that requests may name besides localhost and addresses, separated "
        "by commas, such as shop.example or *.shop.example; * allows all. Without it, none if a "
        "loopback address is served without keys, else all",
    )
    page: Literal["auto", "on", "off"] = Field(
        "auto", description="whether / is a page to try the service; auto: unless keys are needed"
    )
    cors_origins: Origins | None = Field(
        None, description="web origins whose pages may call the service, separated by commas"
    )
    unknown_item_ttl_days: float = Field(
        90,
        gt=0,
        le=3650,
        description="days for which an item that no release knows stays withdrawn or announced",
    )
    redis_timeout_ms: int = Field(
        50, ge=1, description="time limit of a Redis call in milliseconds, connecting included"
    )
    breaker_threshold: int = Field(
        5, ge=1, description="consecutive failed calls of Redis, or of Milvus, that open a breaker"
    )
    breaker_cooldown_s: float = Field(
        1.0, gt=0, description="seconds that the circuit breaker stays open before a trial call"
    )
    max_cold_start_items: int = Field(
        1000,
        ge=0,
        le=10_000,
        description="most announced items outside the release that are recommended, those with "
        "most users; 0 turns this off",
    )
    cold_start_min_users: int = Field(
        2, ge=1, le=50, description="users an item outside the release needs to be recommended"
    )
    cold_start_ttl_hours: float = Field(
        48, gt=0, le=8760, description="hours for which a user counts for such an item"
    )
    min_new_items: int = Field(
        0,
        ge=0,
        le=MAX_K,
        description="so many items of an answer are such items at the least, if so many are "
        "allowed and the request does not say otherwise",
    )
    reload_interval_s: float = Field(
        1.0, gt=0, description="seconds between two checks of `current` for a new release"
    )
    drain_s: float = Field(
        3.0, ge=0, description="seconds from SIGTERM, when /readyz starts to fail, to the end"
    )
    access_log: bool = Field(False, description="log each request")
    tracing: Literal["otlp", "console"] | None = Field(
        None,
        description="export OpenTelemetry traces: console to stdout, otlp over HTTP to "
        "OTEL_EXPORTER_OTLP_ENDPOINT; needs the extra tracing",
    )

    @model_validator(mode="before")
    @classmethod
    def _roots_are_in_one_place(cls, given: Any) -> Any:
        """With a file of tenants, its folder stands for what the process itself stores."""
        if not given.get("tenants"):
            return given
        if given.get("releases"):
            raise ValueError("--tenants and --releases: both given; the file names the releases")
        return {**given, "releases": Path(given["tenants"]).parent}

    @model_validator(mode="after")
    def _no_anonymous_access_from_outside(self) -> Self:
        if self.tenants is not None:
            return self  # of each tenant, that is checked
        if not (self.allow_anonymous or self.keys_file or is_loopback(self.host)):
            raise ValueError(
                f"--host: {self.host} can be reached from other machines, and no keys are "
                "required; give --keys-file, or --allow-anonymous to serve everyone"
            )
        return self

    @model_validator(mode="after")
    def _engine_can_be_used(self) -> Self:
        uri = self.engine_uri.get_secret_value() if self.engine_uri else None
        check_engine(self.engine, uri, self.workers)
        return self

    @property
    def checked_hosts(self) -> str | None:
        """The host names that requests may name, separated by commas; None for all."""
        if self.allowed_hosts is not None:
            return None if "*" in self.allowed_hosts.split(",") else self.allowed_hosts
        return "" if self.keys_file is None and is_loopback(self.host) else None

    @property
    def has_admin(self) -> bool:
        """Whether there are admin endpoints."""
        return bool(self.admin_key or self.keys_file)
