"""Where settings come from besides the command line: RE4_ variables, a TOML file, secret files."""

import os
import tomllib
from collections.abc import Container, Iterable
from pathlib import Path
from typing import Any

from pydantic.fields import FieldInfo
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    PydanticBaseSettingsSource,
    SecretsSettingsSource,
    SettingsError,
    TomlConfigSettingsSource,
)

PREFIX = "RE4_"

# Former name -> present name, where the former one is refused.
_RENAMED = {
    "history": "redis_url",
    "history_file": "redis_url_file",
    "history_password": "redis_password",
    "history_password_file": "redis_password_file",
    "history_folder": "embedded_redis_folder",
    "history_budget_ms": "redis_timeout_ms",
    "history_failures": "breaker_threshold",
    "history_pause_s": "breaker_cooldown_s",
    "history_items": "history_max_length",
    "history_days": "history_ttl_days",
    "event_stream_length": "event_stream_max_length",
    "event_memory_hours": "event_dedup_ttl_hours",
    "new_items": "max_cold_start_items",
    "new_item_users": "cold_start_min_users",
    "new_item_hours": "cold_start_ttl_hours",
    "open": "allow_anonymous",
    "open_metrics": "allow_anonymous_metrics",
    "queue_limit": "max_queue_size",
    "batch_limit": "max_batch_size",
    "union_share": "interest_overlap_sample_rate",
}
# Former name -> present name, where the former one still works.
_ALIASES = {"redis_key_prefix": "redis_prefix"}


def option_of(name: str) -> str:
    """The command line's option for a setting."""
    return "--" + name.replace("_", "-")


def variable_of(name: str) -> str:
    """The environment variable for a setting."""
    return PREFIX + name.upper()


# Former option -> present option.
RENAMED_OPTIONS = {option_of(old): option_of(new) for old, new in _RENAMED.items()}


def with_present_options(words: Iterable[str]) -> list[str]:
    """The arguments of a command line, with each former option that still works by its new name."""
    present = {option_of(old): option_of(new) for old, new in _ALIASES.items()}
    options = (word.partition("=") for word in words)
    return ["".join((present.get(option, option), *value)) for option, *value in options]


def with_secret_files(given: dict[str, Any], secrets: Iterable[str]) -> dict[str, Any]:
    """The settings with each secret that a file holds. Raises ValueError for unusable files."""
    for name in secrets:
        file = given.get(f"{name}_file")
        if file is None:
            continue
        option = option_of(name)
        if given.get(name) is not None:
            raise ValueError(f"{option} and {option}-file: both given; give one")
        try:
            given = {**given, name: Path(file).read_text(encoding="utf-8").strip()}
        except (OSError, UnicodeDecodeError) as error:
            raise ValueError(f"{option}-file: cannot be read ({error})") from None
        if not given[name]:
            raise ValueError(f"{option}-file: {file} is empty; write the secret there")
    return given


class Environment(EnvSettingsSource):
    """The RE4_ variables; a former one is refused, or read if the present one is not given."""

    def __call__(self) -> dict[str, Any]:
        for old, new in _RENAMED.items():
            if variable_of(old).lower() in self.env_vars:
                raise SettingsError(f"{variable_of(old)}: renamed; use {variable_of(new)}")
        former = {
            variable_of(new).lower(): self.env_vars[variable_of(old).lower()]
            for old, new in _ALIASES.items()
            if variable_of(old).lower() in self.env_vars
        }
        self.env_vars = {**former, **self.env_vars}
        return super().__call__()


class _NamedSource(PydanticBaseSettingsSource):
    """A source that a source before it names."""

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        return None, field_name, False

    def path(self, name: str) -> Path | None:
        given = self.current_state.get(name)
        return Path(given) if given else None


class ConfigFile(_NamedSource):
    """The TOML file that the setting `config` names. Its keys are names of settings."""

    def __init__(self, settings_cls: type[BaseSettings], ignored: Container[str]) -> None:
        """ignored: keys that are left out unless the class has them."""
        super().__init__(settings_cls)
        self._ignored = ignored

    def __call__(self) -> dict[str, Any]:
        path = self.path("config")
        if path is None:
            return {}
        if not path.is_file():
            raise SettingsError(f"--config: {path}: no such file")
        try:
            given = TomlConfigSettingsSource(self.settings_cls, path)()
        except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise SettingsError(f"--config: {path}: cannot be read ({error})") from None
        former = {new: given.pop(old) for old, new in _ALIASES.items() if old in given}
        given = {**former, **given}
        fields = self.settings_cls.model_fields
        return {k: v for k, v in given.items() if k in fields or k not in self._ignored}


class SecretsFolder(_NamedSource):
    """The folder that the setting `secrets_dir` names. Its files have the variables' names."""

    def __call__(self) -> dict[str, Any]:
        path = self.path("secrets_dir")
        if path is None:
            return {}
        if not path.is_dir():
            raise SettingsError(f"--secrets-dir: {path}: no such folder")
        return SecretsSettingsSource(self.settings_cls, path)()


METRICS_FOLDER = "PROMETHEUS_MULTIPROC_DIR"  # of the metrics library, which knows no other way


def metrics_folder() -> str | None:
    """The folder through which several workers share their metrics."""
    return os.environ.get(METRICS_FOLDER) or None


def set_metrics_folder(folder: str | None) -> None:
    """For this process and those that it starts; None keeps metrics in memory."""
    os.environ.pop(METRICS_FOLDER, None)
    if folder is not None:
        os.environ[METRICS_FOLDER] = folder
