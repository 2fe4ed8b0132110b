"""python -m service: serve the release that `current` names; make its keys; export its events."""

import json
import logging
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
from pydantic import ValidationError

from service.settings import Setting, Settings, SetupError, table


def _option(setting: Setting) -> click.Option:
    default = "" if setting.default == "required" else f"; default {setting.default}"
    shape: dict[str, Any] = {"metavar": setting.metavar}
    if setting.is_switch:
        shape = {"is_flag": True, "default": None}
    return click.Option(
        [setting.flag, setting.name],
        **shape,
        help=f"{setting.meaning} [{setting.variable}{default}]",
    )


def _settings(given: dict[str, Any]) -> Settings:
    """The settings: from the command line, else the environment, else by default."""
    try:
        return Settings(**{name: value for name, value in given.items() if value is not None})
    except ValidationError as error:
        raise click.UsageError("; ".join(map(_complaint, error.errors()))) from None


def _complaint(problem: Any) -> str:
    if not problem["loc"]:  # of several settings together, which the message names
        return str(problem["ctx"]["error"])
    setting = next(line for line in table() if line.name == problem["loc"][0])
    where = f"{setting.flag} ({setting.variable})"
    if problem["type"] == "missing":
        return f"{where}: not given; it is the {setting.meaning}"
    shown = "" if setting.is_secret else f", given {problem['input']!r:.80}"
    return f"{where}: {problem['msg']}{shown}"


def limit_threads() -> None:
    """One thread for torch and faiss, which read this as they are loaded.

    More would fight over the one core that a process is meant to have.
    """
    os.environ.setdefault("OMP_NUM_THREADS", "1")


def _serve(**given: str | None) -> None:
    if click.get_current_context().invoked_subcommand is not None:
        return
    settings = _settings(given)
    limit_threads()
    from service.run import run_server
    from service.store.embedded_redis import EmbeddedRedisError
    from service.telemetry.logs import configure_logs

    configure_logs(settings.log_level)
    if settings.keys_file is None:
        logging.getLogger("service").warning(
            "OPEN: no keys are asked for; whoever reaches the address may read and write",
            extra={"host": settings.host, "remedy": "--keys-file"},
        )
    try:
        if settings.workers == 1:
            run_server(settings)
        else:
            from service.serving.workers import supervise

            supervise(settings, run_server)
    except (EmbeddedRedisError, SetupError) as error:
        raise click.ClickException(str(error)) from error


main = click.Group(
    "service",
    callback=_serve,
    invoke_without_command=True,
    subcommand_metavar="[new-key | export-events ...]",
    params=[_option(setting) for setting in table()],
    help="Serve the release that RELEASES/current names over HTTP, and each that it comes to name. "
    "Every option can be given as an environment variable instead.",
)


@main.command("new-key")
@click.option(
    "--role",
    "roles",
    type=click.Choice(["read", "events", "admin"]),
    multiple=True,
    required=True,
    help="what the key may do: recommend and read, write events, or all; give several for several",
)
def _new_key(roles: tuple[Any, ...]) -> None:
    """Make an API key: print it, which is done only once, and its line for the file of keys."""
    from service.auth.api_keys import line_of, new_key

    key = new_key()
    click.echo(f"key   {key}\nline  {line_of(key, roles)}")


class _Busy(click.ClickException):
    exit_code = 5  # as of a night, while another is at work


_REDIS = ("history", "history_file", "history_folder")
_EXPORT = ("releases", *_REDIS, "history_password", "history_password_file", "log_level")


@main.command("export-events", params=[_option(line) for line in table() if line.name in _EXPORT])
@click.option(
    "--to",
    metavar="FOLDER",
    type=click.Path(file_okay=False, path_type=Path),
    help="folder of the log; without one, RELEASES/events",
)
def _export_events(to: Path | None, **given: str | None) -> None:
    """Bring the events that wait in Redis to a log: FOLDER/date=YYYY-MM-DD/*.parquet.

    Killed at any moment and started again, it loses none and writes none twice. Says what it does
    not find any more, and was not exported, in the log and in the last line, one JSON object. The
    exit code is 5 while another export is at work in that folder.
    """
    if to is not None and any(given[name] for name in _REDIS):
        given["releases"] = str(to)  # which nothing else is looked for in
    settings = _settings(given)
    if not settings.releases.is_dir():
        raise click.ClickException(f"{settings.releases}: no such folder; name one that is there")
    limit_threads()
    from service.store.event_export import ExportBusyError, ExportError, export_events
    from service.telemetry.logs import configure_logs

    configure_logs(settings.log_level)
    try:
        exported = export_events(settings, to or settings.releases / "events")
    except ExportError as error:
        refusal = _Busy if isinstance(error, ExportBusyError) else click.ClickException
        raise refusal(str(error)) from error
    click.echo(json.dumps(asdict(exported)))


if __name__ == "__main__":
    main(prog_name="python -m service")
