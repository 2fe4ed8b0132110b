"""index.cli: options from the fields of models, one sentence for each error, exit codes."""

from contextlib import redirect_stderr, redirect_stdout
from importlib.metadata import version
from io import StringIO
from pathlib import Path

import pytest
from pydantic import BaseModel, Field, ValidationError, field_validator
from pydantic_settings import BaseSettings, CliPositionalArg, CliSubCommand, CliToggleFlag

from index.cli import Program, fields_given, run, sentences


class ExpectedError(Exception):
    pass


class Train(BaseModel):
    """Train on LOG.

    The second paragraph is not in the list of commands.
    """

    log: CliPositionalArg[Path] = Field(description="the log")
    seed: int = Field(0, ge=0, description="of the random numbers")
    k: int = Field(50, description="items per request")
    name: str | None = Field(None, description="of the run")
    force: CliToggleFlag[bool] = Field(False, description="ignore errors")
    fails: str = Field("", description="how the command fails")

    @field_validator("name")
    @classmethod
    def _not_empty(cls, name: str | None) -> str | None:
        if name == "":
            raise ValueError("empty")
        return name

    def cli_cmd(self) -> None:
        if self.fails == "expected":
            raise ExpectedError("the disk is full")
        if self.fails == "bug":
            raise RuntimeError("a bug")
        print(self.log, self.seed, self.k, self.name, self.force, sorted(fields_given(self)))


class MinAge(BaseModel):
    """A command whose name has two words."""

    years: int = Field(description="years")

    def cli_cmd(self) -> None:
        print(self.years)


class Example(Program, cli_prog_name="example"):
    """An example."""

    train: CliSubCommand[Train]
    min_age: CliSubCommand[MinAge] = Field(description="given, not the docstring")


def call(*arguments: str, program: type[BaseSettings] = Example) -> tuple[object, str, str]:
    """Exit code, stdout and stderr."""
    code: object = 0
    with redirect_stdout(StringIO()) as out, redirect_stderr(StringIO()) as err:
        try:
            run(
                program,
                arguments,
                expected=(ExpectedError,),
                renamed={"--former": "--seed", "-s": "--seed"},
            )
        except SystemExit as ended:
            code = ended.code
    return code, out.getvalue(), err.getvalue()


@pytest.mark.parametrize(
    ("arguments", "output"),
    [
        (["train", "log"], "log 0 50 None False ['log']"),
        (["train", "log", "--seed", "7", "--k", "3"], "log 7 3 None False ['k', 'log', 'seed']"),
        (["train", "--seed=7", "log"], "log 7 50 None False ['log', 'seed']"),
        (["train", "log", "--seed", "7", "--seed", "8"], "log 8 50 None False ['log', 'seed']"),
        (["train", "--force", "log"], "log 0 50 None True ['force', 'log']"),
        (["train", "[1]", "--name", "a,b"], "[1] 0 50 a,b False ['log', 'name']"),
        (["train", "log", "--name", "None"], "log 0 50 None False ['log', 'name']"),
        (["train", "log", "--name", "null"], "log 0 50 null False ['log', 'name']"),
        (["train", "log", "--name", '{"a": "b"}'], "log 0 50 {\"a\": \"b\"} False ['log', 'name']"),
        (["train", "--", "--log"], "--log 0 50 None False ['log']"),
        (["min-age", "--years", "3"], "3"),
    ],
)
def test_arguments_become_fields(arguments: list[str], output: str) -> None:
    assert call(*arguments) == (0, f"{output}\n", "")


def test_the_word_none_is_text() -> None:
    """It may be the name of a file or a release."""
    log = run(Example, ["train", "log", "--name", "None"]).train
    assert log is not None
    assert log.name == "None"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "a command is required: train, min-age"),
        (["trian"], "Unknown command 'trian' (choose from 'train', 'min-age')"),
        (["train"], "the following arguments are required: LOG"),
        (["min-age"], "the following arguments are required: --years"),
        (["train", "log", "--seed"], "argument --seed: expected one argument"),
        (["train", "log", "--sed", "secret"], "Unknown option --sed; did you mean --seed?"),
        (["train", "log", "--see=secret"], "Unknown option --see; did you mean --seed?"),
        (["train", "log", "--Seed", "1"], "Unknown option --Seed; did you mean --seed?"),
        (["train", "log", "--zzz", "--yyy"], "Unknown option --zzz, --yyy"),
        (["train", "log", "--no-force"], "Unknown option --no-force; did you mean --force?"),
        (["train", "log", "-k", "1"], "Unknown option -k"),
        (["train", "log", "extra"], "Unexpected argument extra"),
        (["train", "log", "--seed", "-1"], "--seed: Input should be greater than or equal to 0"),
        (["train", "log", "--name", ""], "--name: empty"),
        (["min-age", "--years", "x", "--former"], "--former: renamed; use --seed"),
        (["train", "log", "--former=secret"], "--former: renamed; use --seed"),
        (["train", "log", "-s", "1"], "-s: renamed; use --seed"),
    ],
)
def test_an_argument_that_cannot_be_used_is_one_sentence_with_exit_code_2(
    arguments: list[str], message: str
) -> None:
    code, out, err = call(*arguments)
    assert (code, out) == (2, "")
    assert err.splitlines()[-1].startswith(f"Error: {message}")
    assert len(err.splitlines()) == 1
    assert "secret" not in err


def test_an_abbreviated_option_is_refused() -> None:
    for option in ("--s", "--se", "--see", "--forc"):
        code, _, err = call("train", "log", option, "1")
        assert code == 2
        assert f"Unknown option {option}" in err


def test_all_invalid_values_are_reported_without_the_values() -> None:
    code, _, err = call("train", "log", "--seed", "secret", "--k", "secret")
    assert code == 2
    assert "--seed: Input should be a valid integer" in err
    assert "--k: Input should be a valid integer" in err
    assert "secret" not in err


def test_an_expected_error_is_its_text_with_exit_code_1() -> None:
    assert call("train", "log", "--fails", "expected") == (1, "", "Error: the disk is full\n")


def test_a_bug_keeps_its_traceback() -> None:
    with pytest.raises(RuntimeError, match="a bug"):
        call("train", "log", "--fails", "bug")


def test_help_lists_commands_with_the_first_sentence_of_their_docstrings() -> None:
    code, out, _ = call("--help")
    assert code == 0
    assert "Train on LOG\n" in out
    assert "second paragraph" not in out
    assert "given, not the docstring" in out


def test_help_lists_options_with_defaults_but_none() -> None:
    code, out, _ = call("train", "--help")
    assert code == 0
    assert "Train on LOG.\n\nThe second paragraph is not in the list of commands.\n" in out
    assert "--k int" in out
    assert "items per request (default: 50)" in out
    assert "of the run\n" in out
    assert "\0" not in out


def test_a_program_reads_no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    class One(Program):
        """A program without commands."""

        seed: int = 1

        def cli_cmd(self) -> None:
            print(self.seed)

    monkeypatch.setenv("SEED", "2")
    assert call(program=One) == (0, "1\n", "")
    assert call("--seed", "3", program=One) == (0, "3\n", "")


def test_sentences_name_the_option_and_leave_out_the_value() -> None:
    with pytest.raises(ValidationError) as refused:
        MinAge.model_validate({"years": "secret"})
    [sentence] = sentences(refused.value)
    assert sentence.startswith("--years: Input should be a valid integer")
    assert "secret" not in sentence


def test_the_version_is_printed_without_a_command() -> None:
    shown = StringIO()
    with redirect_stdout(shown), pytest.raises(SystemExit) as ended:
        run(Example, ["--version"])
    assert ended.value.code == 0
    assert shown.getvalue() == f"re4 {version('re4')}\n"
