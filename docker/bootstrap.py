"""The first release, where there is none: a night like every other, in which nothing is live yet.

It is trained on the log that the night's settings name. Where no such file is and the folder is the
stack's own, a synthetic log is written there first.
"""

import sys
from pathlib import Path

import torch

from index.release.reading import read_current
from training.data.synthetic import write_synthetic
from training.fitting.malloc import keep_freed_memory
from training.nightly.config import read_night_config
from training.nightly.run import nightly


def bootstrap(settings: Path) -> int:
    """An exit code: 0 if the service may start. Raises ConfigError or ReleaseError.

    It may without a release where the log is too small for one: events make it grow.
    """
    config = read_night_config(settings)
    if (live := read_current(config.root)) is not None:
        print(f"{live} is live")
        return 0
    log = config.log
    if log is not None and not log.exists() and config.root in log.parents:
        print(f"{log}: not there, so a synthetic log it is", flush=True)
        write_synthetic(log.parent)
    torch.set_num_threads(config.threads)
    keep_freed_memory()
    outcome = nightly(config, lambda said: print(said, flush=True))
    print(outcome.sentence)
    return 0 if outcome.outcome == "nothing-new" else outcome.exit_code


if __name__ == "__main__":
    sys.exit(bootstrap(Path(sys.argv[1])))
