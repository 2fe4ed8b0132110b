"""Every check and figure that needs a GPU, in one command; writes tests/GPU.md.

    python tests/evidence/gpu_check.py [--device cuda:0] [--quick] [--items 12000,368000,5000000]
        [--served 368000,10000000] [--book 600000,368000,7000000] [--seconds 20] [--report FILE]
    python tests/evidence/gpu_check.py --pack FOLDER [--wheels FOLDER]
    python tests/evidence/gpu_check.py --unpack FOLDER --into FOLDER

With --device cpu every step is executed, and the report says that it is not of a GPU; --quick takes
small sizes. For a machine without a network --pack writes the repository, and wheels if given, in
parts of at most 60 MB, and --unpack joins them there. It needs a torch and a faiss for the GPU, and
the packages that it names where one is missing. A step that fails is reported, and the others go
on. The last line is one JSON object.
"""

import argparse
import json
import platform
import sys
import traceback
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import gpu_pack

REPOSITORY = Path(__file__).resolve().parents[2]
DEFAULTS = {
    "items": "12000,368000,5000000",
    "served": "368000,10000000",
    "book": "600000,368000,7000000",
    "seconds": "20",
}
QUICK = {"items": "2000", "served": "2000", "book": "400,300,4000", "seconds": "0.5"}
STEPS = (
    "marked_tests",
    "index_parity",
    "training_parity",
    "training_speed",
    "book_epoch",
    "serving_speed",
)


def missing() -> list[str]:
    """The packages that are not installed."""
    absent = []
    for name in gpu_pack.PACKAGES:
        try:
            for known in ("faiss-gpu", "faiss-cpu") if name == "faiss" else (name,):
                try:
                    version(known)
                    break
                except PackageNotFoundError:
                    continue
            else:
                absent.append(name)
        except ValueError:
            absent.append(name)
    return absent


def numbers(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(","))


def run_steps(device: str, sizes: Any) -> dict[str, dict[str, Any]]:
    import gpu_parts

    results: dict[str, dict[str, Any]] = {}
    for name in STEPS:
        print(name, file=sys.stderr, flush=True)
        try:
            results[name] = getattr(gpu_parts, name)(device, sizes)
        except Exception as error:  # the others say something still
            traceback.print_exc()
            results[name] = {"passed": False, "error": f"{type(error).__name__}: {error}"}
    return results


def report(device: str, results: dict[str, dict[str, Any]], command: str) -> str:
    import gpu_parts
    import torch

    name = "none" if device == "cpu" else torch.cuda.get_device_name(torch.device(device))
    lines = ["# Checks and figures on a GPU", ""]
    if device == "cpu":
        lines += ["**Not a GPU: every step was executed on the CPU, as a stand-in.**", ""]
    lines += [
        f"`{command}`, {date.today().isoformat()}; GPU: {name}; {platform.processor()}; "
        f"torch {torch.__version__}.",
        "",
    ]
    for step, figures in results.items():
        purpose = (getattr(gpu_parts, step).__doc__ or "").splitlines()[0]
        lines += [f"## {step.replace('_', ' ').capitalize()}", "", purpose, ""]
        lines += ["| | |", "|---|---|", *(f"| {k} | {v} |" for k, v in figures.items()), ""]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--quick", action="store_true", help="small sizes")
    for option in ("--items", "--served", "--book", "--seconds"):
        parser.add_argument(option)
    parser.add_argument("--report", type=Path, default=REPOSITORY / "tests" / "GPU.md")
    for option in ("--pack", "--wheels", "--unpack", "--into"):
        parser.add_argument(option, type=Path)
    given = parser.parse_args()
    if given.pack:
        parts = gpu_pack.pack(REPOSITORY, given.pack, given.wheels)
        print(json.dumps({"parts": [str(part) for part in parts], "passed": True}))
        return
    if given.unpack:
        gpu_pack.unpack(given.unpack, given.into or Path())
        print(json.dumps({"into": str(given.into or Path()), "passed": True}))
        return
    if absent := missing():
        sys.exit(f"Error: install {', '.join(absent)} and a torch for this GPU, then start again")
    import torch

    if given.device != "cpu" and not torch.cuda.is_available():
        sys.exit(f"Error: torch {torch.__version__} sees no GPU; --device cpu is a stand-in")
    from gpu_parts import Sizes

    chosen = QUICK if given.quick else DEFAULTS
    size = {name: getattr(given, name) or default for name, default in chosen.items()}
    users, items, interactions = numbers(size["book"])
    sizes = Sizes(
        numbers(size["items"]),
        (users, items, interactions),
        numbers(size["served"]),
        float(size["seconds"]),
    )
    results = run_steps(given.device, sizes)
    command = " ".join(["python tests/evidence/gpu_check.py", *sys.argv[1:]])
    given.report.write_text(report(given.device, results, command), encoding="utf-8")
    failed = [name for name, figures in results.items() if not figures.get("passed", True)]
    summary = {"is_gpu": given.device != "cpu", "steps": len(results), "failed": failed}
    print(json.dumps({**summary, "report": str(given.report), "passed": not failed}))
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
