"""python -m service: serve the current release; make API keys; export events; list settings."""

import json
import logging
import os
import sys
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict, SettingsError

from index.cli import Program, fail, run
from service.auth.api_keys import ALL_TENANTS, Role, key_line, new_key
from service.settings import SECRETS, Settings, SetupError, StoreSettings, check_root
from service.settings_sources import (
    RENAMED_OPTIONS,
    option_of,
    set_metrics_folder,
    variable_of,
    with_present_options,
)
from service.tenants import NAME_RULE, Tenants, is_tenant_name, read_tenants

_BUSY = 5  # exit code, as of a nightly run while another one runs


class NewKey(Program):
    """Make an API key: print it, once only, and its line for the file of keys."""

    model_config = SettingsConfigDict(cli_prog_name="python -m service new-key")

    role: list[Role] = Field(
        min_length=1,
        description="what the key may do: recommend and read, write events, withdraw items of the "
        "catalog, erase histories, or everything (admin); repeat it for several roles",
    )

    tenant: str | None = Field(
        None, description="the tenant whose key it is, in a file for several; * for all of them"
    )

    def cli_cmd(self) -> None:
        if self.tenant not in (None, ALL_TENANTS) and not is_tenant_name(self.tenant):
            fail(2, f"--tenant: {self.tenant}: a name has {NAME_RULE}; or * for all tenants")
        key = new_key()
        print(f"key   {key}\nline  {key_line(key, self.role, self.tenant)}")


class ExportEvents(StoreSettings):
    """Export the events that wait in Redis to a log: FOLDER/date=YYYY-MM-DD/*.parquet.

    Details of items that the shop has changed are written beside them, for the next training.
    Killed at any moment and started again, it loses no event and writes none twice. Events that
    were dropped from Redis before any export are counted in the log and in the last line, one JSON
    object. The exit code is 5 while another export runs in that folder.
    """

    model_config = SettingsConfigDict(cli_prog_name="python -m service export-events")

    to: Path | None = Field(None, description="folder of the log; without one, RELEASES/events")

    @model_validator(mode="before")
    @classmethod
    def _needs_no_releases(cls, given: Any) -> Any:
        has_redis = any(given.get(name) for name in _REDIS)
        return {**given, "releases": given["to"]} if has_redis and given.get("to") else given

    def cli_cmd(self) -> None:
        if not self.releases.is_dir():
            raise SetupError(f"{self.releases}: no such folder; name one that is there")
        if not (self.redis_url or self.embedded_redis_folder):
            check_root(self.releases)
        _check_redis_url(self)
        from service.store.event_export import ExportBusyError, ExportError, export_events
        from service.telemetry.logs import configure_logs

        configure_logs(self.log_level)
        try:
            # With a Redis and --to alone there is no root, whose events they would have to be.
            root = None if self.releases == self.to else self.releases
            exported = export_events(self, self.to or self.releases / "events", root)
        except ExportError as error:
            if error.exported.lost:  # they are reported this once
                print(error.exported.summary())
            fail(_BUSY if isinstance(error, ExportBusyError) else 1, str(error))
        print(exported.summary())


_REDIS = ("redis_url", "redis_url_file", "embedded_redis_folder")


class PrintSettings(Program):
    """Print the table of settings, in Markdown."""

    model_config = SettingsConfigDict(cli_prog_name="python -m service settings")

    def cli_cmd(self) -> None:
        print(settings_table())


class PrintOpenapi(Program):
    """Print the OpenAPI document of all endpoints, as JSON: clients are generated from it."""

    model_config = SettingsConfigDict(cli_prog_name="python -m service openapi")

    def cli_cmd(self) -> None:
        from service.app import openapi_document

        print(json.dumps(openapi_document(), indent=2))


COMMANDS: dict[str, type[BaseSettings]] = {
    "new-key": NewKey,
    "export-events": ExportEvents,
    "settings": PrintSettings,
    "openapi": PrintOpenapi,
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Exit code 2 for settings that cannot be used, 1 for anything else the user can fix."""
    limit_threads()
    words = with_present_options(sys.argv[1:] if arguments is None else arguments)
    program: type[BaseSettings] = Settings
    if words and words[0] in COMMANDS:
        program, words = COMMANDS[words[0]], words[1:]
    settings = run(
        program, words, expected=(SetupError,), renamed=RENAMED_OPTIONS, explain=sentences
    )
    if isinstance(settings, Settings):
        _serve(settings)


def limit_threads() -> None:
    """One thread for torch and faiss, which read this when they are loaded.

    More would compete for the one core of each process.
    """
    os.environ.setdefault("OMP_NUM_THREADS", "1")


def _serve(settings: Settings) -> None:
    try:
        _check_redis_url(settings)
    except SettingsError as error:
        fail(2, str(error))
    from service.run import run_server
    from service.store.embedded_redis import EmbeddedRedisError
    from service.telemetry.logs import configure_logs

    tenants = _tenants(settings)
    configure_logs(settings.log_level)
    if settings.keys_file is None and not (
        tenants and all("keys_file" in own for own in tenants.values())
    ):
        logging.getLogger("service").warning(
            "OPEN: no keys are required; everyone who reaches the address may read and write",
            extra={"host": settings.host, "remedy": "--keys-file"},
        )
    try:
        if settings.workers == 1:
            # Metrics stay in memory: in files they would outlive this process.
            set_metrics_folder(None)
            run_server(settings, tenants=tenants)
        else:
            from service.serving.workers import supervise

            supervise(settings, partial(run_server, tenants=tenants))
    except (EmbeddedRedisError, SetupError) as error:
        logging.shutdown()  # so that the sentence is below all lines of the log
        fail(1, str(error))


def _tenants(settings: Settings) -> Tenants:
    try:
        return read_tenants(settings, sentences)
    except SetupError as error:
        fail(2, str(error))


def _check_redis_url(settings: StoreSettings) -> None:
    """Raises SettingsError, which shows nothing of the URL."""
    if settings.redis_url is None:
        return
    from service.store.redis_url import parse_url

    try:
        parse_url(settings.redis_url.get_secret_value())
    except ValueError as error:
        name = "redis_url"
        raise SettingsError(f"{option_of(name)} ({variable_of(name)}): {error}") from None


def sentences(error: ValidationError) -> Iterator[str]:
    """Each problem as `--option (VARIABLE): what is wrong, given VALUE`; no secret is shown."""
    fields = {**Settings.model_fields, **ExportEvents.model_fields}
    for problem in error.errors(include_url=False):
        name = str(problem["loc"][0]) if problem["loc"] else ""
        subject = option_of(name) + (f" ({variable_of(name)})" if name in fields else "")
        if not name:  # of several settings together, which the message names
            yield str(problem["ctx"]["error"])
        elif problem["type"] == "extra_forbidden":
            yield f"{name}: unknown setting"
        elif problem["type"] == "missing":
            yield f"{subject}: not given; it is the {fields[name].description}"
        else:
            given = "" if name in SECRETS else f", given {problem['input']!r:.80}"
            yield f"{subject}: {problem['msg'].removeprefix('Value error, ')}{given}"


def settings_table() -> str:
    """Every setting with option, variable, default and meaning, as a Markdown table."""
    rows = ["| option | variable | default | meaning |", "|---|---|---|---|"]
    for name, field in Settings.model_fields.items():
        default = "required" if field.is_required() else _shown(field.default)
        cells = (f"`{option_of(name)}`", f"`{variable_of(name)}`", default, field.description)
        rows.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(rows)


def _shown(default: Any) -> str:
    if isinstance(default, bool):
        return str(default).lower()
    return "none" if default is None else str(default)


if __name__ == "__main__":
    main()
