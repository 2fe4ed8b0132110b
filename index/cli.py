"""The base of all command lines: options from the fields of a model, errors in one sentence.

A program is a subclass of Program whose fields are its commands (CliSubCommand); a command is a
model with a method cli_cmd. Options are the fields of the model, kebab-case.
"""

import re
import sys
from argparse import Action, ArgumentParser, RawDescriptionHelpFormatter
from collections.abc import Callable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from importlib.metadata import version
from inspect import cleandoc
from typing import Any, NoReturn, TypeVar, get_args

from pydantic import BaseModel, ValidationError
from pydantic_settings import (
    BaseSettings,
    CliApp,
    CliSettingsSource,
    CliSubCommand,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
    get_subcommand,
)

Settings = TypeVar("Settings", bound=BaseSettings)

# The mark of a command among a field's metadata.
_SUBCOMMAND = get_args(CliSubCommand[int])[1]  # type: ignore[misc]  # is generic at run time
_NONE = "\0"  # the text that is parsed as None: no argument can contain it
_UNRECOGNIZED = "unrecognized arguments: "
_INVALID_COMMAND = re.compile(r"^argument \{.*?\}: invalid choice: ")


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
        if get_subcommand(self, is_required=False) is None:
            fail(2, f"a command is required: {', '.join(_commands(type(self)))}")
        CliApp.run_subcommand(self)


def sentences(error: ValidationError) -> Iterator[str]:
    """Each problem as `--option: what is wrong`; values are left out, as they may be secret."""
    for problem in error.errors(include_url=False, include_input=False):
        option = str(problem["loc"][-1]).replace("_", "-") if problem["loc"] else ""
        message = problem["msg"].removeprefix("Value error, ")
        yield f"--{option}: {message}" if option else message


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
    words = [*sys.argv[1:]] if arguments is None else [*arguments]
    options = _options(program, words) if renamed else ()
    for option in (word.split("=", 1)[0] for word in words):
        if renamed and option in renamed and option not in options:
            fail(2, f"{option}: renamed; use {renamed[option]}")
    _set_descriptions(program)
    try:
        return CliApp.run(program, words, cli_settings_source=_source(program))
    except ValidationError as error:
        fail(2, "; ".join(explain(error)))
    except SettingsError as error:
        fail(2, _usage_error(program, words, str(error).removeprefix("error parsing CLI: ")))
    except expected as error:
        fail(1, str(error))


def fields_given(model: BaseModel) -> dict[str, Any]:
    """The fields that were given, not left to their defaults."""
    return {name: getattr(model, name) for name in model.model_fields_set}


def fail(code: int, message: str) -> NoReturn:
    """End the process with the exit code and the message on stderr."""
    print(f"Error: {message}", file=sys.stderr)
    raise SystemExit(code)


class _HelpFormatter(RawDescriptionHelpFormatter):
    """Shows no default of None."""

    def _get_help_string(self, action: Action) -> str | None:
        text = super()._get_help_string(action)
        return text and text.replace(f" (default: {_NONE})", "")


def _source(program: type[BaseSettings]) -> CliSettingsSource[Any]:
    source = CliSettingsSource[Any](
        program,
        cli_parse_none_str=_NONE,
        add_argument_method=_add_argument,
        formatter_class=_HelpFormatter,
    )
    source.root_parser.add_argument(
        "--version", action="version", version=f"re4 {version('re4')}", help="print the version"
    )
    return source


def _add_argument(parser: ArgumentParser, *names: str, **settings: Any) -> Action:
    """Add an option whose name has two dashes even if it is one letter, except -h."""
    long = [f"-{name}" if re.fullmatch("-[^-h]", name) else name for name in names]
    return parser.add_argument(*long, **settings)


def _commands(model: type[BaseModel]) -> dict[str, type[BaseModel]]:
    """The commands of a program, by name."""
    return {
        field.alias or name.replace("_", "-"): get_args(field.annotation)[0]
        for name, field in model.model_fields.items()
        if _SUBCOMMAND in field.metadata
    }


def _set_descriptions(program: type[BaseModel]) -> None:
    """Take descriptions of the program and its commands, where missing, from their docstrings."""
    program.__doc__ = cleandoc(program.__doc__ or "")
    commands = _commands(program)
    for name, field in program.model_fields.items():
        command = commands.get(field.alias or name.replace("_", "-"))
        if command is not None:
            _set_descriptions(command)
            summary = (command.__doc__ or "").partition("\n\n")[0].replace("\n", " ")
            field.description = field.description or summary.partition(". ")[0].removesuffix(".")


def _usage_error(program: type[BaseModel], words: Sequence[str], message: str) -> str:
    """The parser's message. Unknown options are named without their values, which may be secret."""
    if not message.startswith(_UNRECOGNIZED):
        return _INVALID_COMMAND.sub("Unknown command ", message)
    extra = message.removeprefix(_UNRECOGNIZED)
    unknown = [word.split("=", 1)[0] for word in extra.split() if word.startswith("-")]
    if not unknown:
        return f"Unexpected argument {extra}"
    near = get_close_matches(unknown[0], [*_options(program, words), "--version"], n=1)
    hint = f"; did you mean {near[0]}?" if near else ""
    return f"Unknown option {', '.join(unknown)}{hint}"


def _options(model: type[BaseModel], words: Sequence[str]) -> list[str]:
    """The options of the command that the words name."""
    for word in words:
        model = _commands(model).get(word, model)
    names = (field.alias or name for name, field in model.model_fields.items())
    return [f"--{name.replace('_', '-')}" for name in names]
