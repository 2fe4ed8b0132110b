"""Kills of publish, rollback and prune, and the live release after each.

    python tests/evidence/publish_kills.py [--each 20] [--random 400]

interrupted.py kills each before each write, fsync, rename and removal, or halfway through it,
--each times, and at random moments. After each kill `current` must name a release that verifies,
every listed release must be whole, and the next publish must work and leave no partial file. The
last line is one JSON object; the exit code is 1 if anything fails.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from releases import write_release

from index.release.manifest import DRAFTS, RELEASES

PROGRAM = Path(__file__).with_name("interrupted.py")


def write_template(folder: Path) -> None:
    """A root with four drafts."""
    for seed, name in enumerate(("first", "second", "third", "fourth")):
        write_release(folder, name, kind=("flat", "ivf")[seed % 2], seed=seed)
    (folder / RELEASES).rename(folder / DRAFTS)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--each", type=int, default=20, help="kills at each point")
    parser.add_argument("--random", type=int, default=400, help="kills at random moments")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="re4-publish-") as name:
        template, scratch = Path(name) / "template", Path(name) / "scratch"
        write_template(template)
        scratch.mkdir()
        arguments = ("--each", str(options.each), "--random", str(options.random))
        ended = subprocess.run(
            [sys.executable, PROGRAM, template, scratch, *arguments],
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            text=True,
            check=False,
        )
    if ended.returncode:
        print(json.dumps({"evidence": "publish-kills", "passed": False}))
        raise SystemExit(1)
    points = json.loads(ended.stdout.splitlines()[-1])
    kills = {name: points.pop(name) for name in ("kills", "random kills")}
    summary = {"kills_at_points": kills["kills"], "kills_at_random": kills["random kills"]}
    print(json.dumps({"evidence": "publish-kills", "passed": True, **summary, "points": points}))


if __name__ == "__main__":
    main()
