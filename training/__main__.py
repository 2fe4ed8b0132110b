"""python -m training fit | evaluate | compare | reproduce | nightly | compact-events | synthetic"""

import sys
from collections.abc import Sequence
from urllib.parse import quote

import torch
from pydantic import Field
from pydantic_settings import CliSubCommand

from index.cli import Program, run
from index.release.errors import ReleaseError
from training import commands
from training.config import ConfigError
from training.data.errors import LogError
from training.data.former_names import FORMER_NAMES
from training.fitting import ranks
from training.fitting.malloc import keep_freed_memory
from training.fitting.trainer import DivergedError
from training.models.device import DeviceMemoryError

_SET = "--set"


class Training(Program, cli_prog_name="python -m training"):
    """From a log to a draft."""

    fit: CliSubCommand[commands.FitCommand] = Field(description="train on a log, write a draft")
    evaluate: CliSubCommand[commands.EvaluateCommand] = Field(
        description="metrics of a release or draft on a log"
    )
    compare: CliSubCommand[commands.CompareCommand] = Field(
        description="train and evaluate systems side by side"
    )
    reproduce: CliSubCommand[commands.ReproduceCommand] = Field(
        description="rerun a table or figure of the Re4 paper"
    )
    nightly: CliSubCommand[commands.NightlyCommand] = Field(
        description="train on new events, compare with the live release, publish or refuse"
    )
    compact_events: CliSubCommand[commands.CompactEventsCommand] = Field(
        alias="compact-events",
        description="erase from the exported events what forgotten users did",
    )
    synthetic: CliSubCommand[commands.SyntheticCommand] = Field(
        description="write a log with planted interests"
    )

    def cli_cmd(self) -> None:
        if ranks.is_launched() and self.fit is None:
            raise ConfigError(
                "only fit runs in several processes of torchrun; start this command without it"
            )
        keep_freed_memory()
        torch.set_num_threads(1)
        super().cli_cmd()


def main(arguments: Sequence[str] | None = None) -> None:
    given = [*(sys.argv[1:] if arguments is None else arguments)]
    run(
        Training,
        _quote_settings(given),
        expected=(
            ConfigError,
            DeviceMemoryError,
            DivergedError,
            LogError,
            ReleaseError,
            OSError,
        ),
        renamed={_option(former): _option(name) for former, name in FORMER_NAMES.items()},
    )


def _quote_settings(arguments: list[str]) -> list[str]:
    """The arguments with the values of --set quoted, so that they have no commas."""
    quoted = []
    for before, word in zip(["", *arguments], arguments, strict=False):
        option, equals, value = word.partition("=")
        if before == _SET:
            quoted.append(quote(word, safe=""))
        elif option == _SET and equals:
            quoted.append(f"{option}={quote(value, safe='')}")
        else:
            quoted.append(word)
    return quoted


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"


if __name__ == "__main__":
    main()
