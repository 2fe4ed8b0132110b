"""What the three command lines share: options from a settings class, errors in one sentence.

A program is a subclass of Program whose fields are its commands (CliSubCommand); a command is a
model with a method cli_cmd. Options are the fields of the model, kebab-case.
"""

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from inspect import cleandoc
from typing import Any, NoReturn, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_settings import (
    BaseSettings,
    CliApp,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
)


class Program(BaseSettings):
    """A command line with commands. It reads its arguments and nothing else: no environment."""

    model_config = SettingsConfigDict(
        cli_kebab_case=True,
        cli_hide_none_type=True,
        cli_enforce_required=True,
        cli_avoid_json=True,
        cli_exit_on_error=False,
        hide_input_in_errors=True,
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        *_: PydanticBaseSettingsSource,
        **__: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return (init_settings,)

    def cli_cmd(self) -> None:
        CliApp.run_subcommand(self)


def sentences(error: ValidationError) -> Iterator[str]:
    """Each problem as `--option: what is wrong`; values are left out, as they may be secret."""
    for problem in error.errors(include_url=False, include_input=False):
        option = str(problem["loc"][-1]).replace("_", "-") if problem["loc"] else ""
        message = problem["msg"].removeprefix("Value error, ")
        yield f"--{option}: {message}" if option else message


Settings = TypeVar("Settings", bound=BaseSettings)


def run(
    program: type[Settings],
    arguments: Sequence[str] | None = None,
    *,
    expected: tuple[type[Exception], ...] = (),
    renamed: Mapping[str, str] | None = None,
    explain: Callable[[ValidationError], Iterator[str]] = sentences,
) -> Settings:
    """Run a command line; an error that the user can fix is one sentence on stderr.

    expected: errors of the commands that are reported by their text, with exit code 1; any other
    is a bug and keeps its traceback. renamed: former option -> the option that replaces it.
    explain: the sentences for invalid values.
    Exit code 2 for arguments that cannot be used.
    """
    given = [*sys.argv[1:]] if arguments is None else [*arguments]
    for word in given:
        option = word.split("=", 1)[0]
        if renamed and option in renamed:
            fail(2, f"{option}: renamed; use {renamed[option]}")
    program.__doc__ = cleandoc(program.__doc__ or "")  # as the help shows it
    try:
        return CliApp.run(program, given)
    except ValidationError as error:
        fail(2, "; ".join(explain(error)))
    except SettingsError as error:
        fail(2, _usage(str(error).removeprefix("error parsing CLI: ")))
    except expected as error:
        fail(1, str(error))


_UNRECOGNIZED = "unrecognized arguments: "


def _usage(message: str) -> str:
    """The parser's message; unknown options without their values, which may be secret."""
    if not message.startswith(_UNRECOGNIZED):
        return message
    words = message.removeprefix(_UNRECOGNIZED).split()
    options = [word.split("=", 1)[0] for word in words if word.startswith("-")]
    return f"unknown option: {', '.join(options)}" if options else message


def fields_given(model: BaseModel) -> dict[str, Any]:
    """The fields that were given, not left to their defaults."""
    return {name: getattr(model, name) for name in model.model_fields_set}


def fail(code: int, message: str) -> NoReturn:
    """End the process with the exit code and the message on stderr."""
    print(f"Error: {message}", file=sys.stderr)
    raise SystemExit(code)
