"""python -m service: serve the release that `current` names, over HTTP."""

import os
from typing import Any

import click
from pydantic import ValidationError

from service.settings import Setting, Settings, table


def _option(setting: Setting) -> click.Option:
    default = "" if setting.default == "required" else f"; default {setting.default}"
    return click.Option(
        [setting.flag, setting.name],
        metavar=setting.metavar,
        help=f"{setting.meaning} [{setting.variable}{default}]",
    )


def _settings(given: dict[str, Any]) -> Settings:
    """The settings: from the command line, else the environment, else by default."""
    try:
        return Settings(**{name: value for name, value in given.items() if value is not None})
    except ValidationError as error:
        raise click.UsageError("; ".join(map(_complaint, error.errors()))) from None


def _complaint(problem: Any) -> str:
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
    settings = _settings(given)
    limit_threads()
    from service.embedded import EmbeddedRedisError
    from service.server import serve

    try:
        serve(settings)
    except EmbeddedRedisError as error:
        raise click.ClickException(str(error)) from error


main = click.Command(
    "service",
    callback=_serve,
    params=[_option(setting) for setting in table()],
    help="Serve the release that RELEASES/current names over HTTP, and each that it comes to name. "
    "Every option can be given as an environment variable instead.",
)

if __name__ == "__main__":
    main(prog_name="python -m service")
