"""Building, loading, memory and search from ten thousand to ten million items.

    python tests/evidence/growth.py [--items 10000,100000,1000000,10000000] [--norms 0.4]
        [--out .bench/growth]

For each number of items, a draft of random clustered vectors and of interests of users who were not
trained on is built, published, loaded, searched and served by two workers: each in a process of its
own. Measurements are kept in <out>/<items>.json after each of these; started again, it goes on
where it was. Memory of one process is the peak of its resident set, with the pages of files that it
maps. That of the workers is the sum of their proportional sets (PSS): pages that they share count
once. Ten million items need 12 GB of disk, and half an hour on two cores. Prints a Markdown table,
draws <out>/growth.svg; the last line is one JSON object.
"""

import argparse
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path
from typing import Any

import httpx
import psutil
import server
from growth_parts import REQUESTS_FILE, K, histories
from server import MIB, REPOSITORY, serving
from sizes import cpu, run

PARTS = Path(__file__).with_name("growth_parts.py")
WORKERS, ROUNDS = 2, 25
LIMITS = {"build_s": 3600, "build_gib": 16, "load_s": 10, "workers_gib": 6}  # at ten million

Summary = dict[str, Any]

server.PATIENCE_S = 900.0  # also on a machine that has other things to do


def measure(items: int, norms: float, out: Path) -> Summary:
    """One number of items; what was measured before is not measured again."""
    kept = out / f"{items}.json"
    summary: Summary = json.loads(kept.read_text()) if kept.exists() else {"items": items}
    folder = out / str(items)
    draft = folder / "root" / "drafts" / f"items-{items}"
    if "us" in summary:
        return summary
    if not (draft / "manifest.json").exists():
        shutil.rmtree(folder, ignore_errors=True)
        run(PARTS, "draft", folder, items, norms)
    for name, part in parts(folder, draft).items():
        if name not in summary:
            summary |= {key: round(v, 4) if isinstance(v, float) else v for key, v in part()}
            kept.write_text(json.dumps(summary))
            print(items, summary, file=sys.stderr, flush=True)
    shutil.rmtree(folder)
    return summary


def parts(folder: Path, draft: Path) -> dict[str, Callable[[], Iterator[tuple[str, Any]]]]:
    """What is measured, by a figure that it gives."""
    root = folder / "root"
    release = root / "releases" / draft.name
    return {
        "build_s": lambda: build(draft),
        "publish_s": lambda: publish(draft, release),
        "load_s": lambda: iter(run(PARTS, "load", release).summary.items()),
        "workers_gib": lambda: serve(root),
        "us": lambda: iter(run(PARTS, "search", release, folder / REQUESTS_FILE).summary.items()),
    }


def build(draft: Path) -> Iterator[tuple[str, Any]]:
    ran = run("-m", "index", "build", draft, threads=None)
    yield "build_s", ran.wall_s
    yield "build_cpu_s", ran.cpu_s
    yield "build_gib", ran.peak_mib / 1024
    measured = json.loads((draft / "manifest.json").read_text())["index"]
    yield "spec", measured["spec"]
    yield "users", measured["queries"]


def publish(draft: Path, release: Path) -> Iterator[tuple[str, Any]]:
    ran = run("-m", "index", "publish", draft, "--force")
    yield "publish_s", ran.wall_s
    yield "publish_gib", ran.peak_mib / 1024
    yield "release_mb", sum(path.stat().st_size for path in release.iterdir()) / 1e6
    yield "index_mb", (release / "items.faiss").stat().st_size / 1e6


def serve(root: Path) -> Iterator[tuple[str, Any]]:
    """Two workers that load the release at the same time, and answer requests."""
    items = int(next((root / "releases").iterdir()).name.removeprefix("items-"))
    with serving(root, workers=WORKERS) as running:
        for event in ("release loaded", "listening"):
            running.wait_for(event, WORKERS)
        # One connection a request, so that both workers get some.
        with httpx.Client(limits=httpx.Limits(max_keepalive_connections=0)) as client:
            for history in histories(items) * ROUNDS:
                body = {"sequence": history, "k": K}
                client.post(f"{running.url}/recommend", json=body).raise_for_status()
        processes = [psutil.Process(running.pid)]
        processes += processes[0].children(recursive=True)
        weighed = [p.memory_full_info() for p in processes if "redis" not in p.name()]
        yield "load_both_s", max(line["seconds"] for line in running.told("release loaded"))
        yield "workers_gib", sum(memory.pss for memory in weighed) / MIB / 1024
        yield "own_gib", max(memory.uss for memory in weighed) / MIB / 1024


# --- the table and the plot ---

ROWS: tuple[tuple[str, Callable[[Summary], str]], ...] = (
    ("items", lambda s: f"{s['items']:,}"),
    ("index", lambda s: named(s["spec"])),
    ("`index build`, elapsed s", lambda s: f"{s['build_s']:,.0f}"),
    ("its processor time, s", lambda s: f"{s['build_cpu_s']:,.0f}"),
    ("its peak memory, GiB", lambda s: f"{s['build_gib']:.2f}"),
    ("`index publish`, s", lambda s: f"{s['publish_s']:,.1f}"),
    ("release on disk, MB", lambda s: f"{s['release_mb']:,.1f}"),
    ("of that the index, MB", lambda s: f"{s['index_mb']:,.1f}"),
    ("loading it, one process: elapsed s", lambda s: f"{s['load_s']:.2f}"),
    ("its processor time, s", lambda s: f"{s['load_cpu_s']:.2f}"),
    ("two workers at the same time, elapsed s", lambda s: f"{s['load_both_s']:.2f}"),
    ("memory of two workers, GiB", lambda s: f"{s['workers_gib']:.2f}"),
    ("of that each worker's own, GiB", lambda s: f"{s['own_gib']:.2f}"),
    ("a request, merged, µs", lambda s: f"{s['us']:,.0f}"),
    ("recall@50 of other users", lambda s: f"{s['recall']:.3f}"),
)


def named(spec: dict[str, Any]) -> str:
    if spec["kind"] == "flat":
        return "flat"
    return f"head {spec['head']:,}, {spec['lists']:,} lists"


def table(sizes: list[Summary]) -> str:
    lines = [f"| {name} | {' | '.join(map(show, sizes))} |" for name, show in ROWS]
    return "\n".join([lines[0], f"|---|{'---:|' * len(sizes)}", *lines[1:]])


def plot(sizes: list[Summary], path: Path) -> None:
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "growth"
    import matplotlib.pyplot as plt

    panels = {
        "processor time, s": {"build": "build_cpu_s", "load": "load_cpu_s"},
        "GiB": {"build, peak": "build_gib", "two workers": "workers_gib"},
        "µs a request at recall .95": {"merged": "us"},
    }
    figure, axes = plt.subplots(1, len(panels), figsize=(10, 3.2), layout="constrained")
    for place, (title, lines) in zip(axes, panels.items(), strict=True):
        for label, key in lines.items():
            x, y = [s["items"] for s in sizes], [s[key] for s in sizes]
            place.loglog(x, y, marker=".", label=label)
        place.set_title(title, fontsize="small")
        place.set_xlabel("items")
        place.legend(fontsize="x-small")
        place.grid(alpha=0.3)
    figure.savefig(path, metadata={"Date": None})


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--items", default="10000,100000,1000000,10000000", help="numbers of items")
    parser.add_argument("--norms", type=float, default=0.4, help="deviation of the log norms")
    parser.add_argument("--out", type=Path, default=REPOSITORY / ".bench" / "growth")
    options = parser.parse_args()
    out = options.out.absolute()
    out.mkdir(parents=True, exist_ok=True)
    sizes = [measure(int(items), options.norms, out) for items in options.items.split(",")]
    plot(sizes, out / "growth.svg")
    print(table(sizes))
    passed = all(size[name] <= limit for size in sizes for name, limit in LIMITS.items())
    summary = {"evidence": "growth", "passed": passed, "date": date.today().isoformat()}
    print(json.dumps({**summary, "cpu": cpu(), "cores": os.cpu_count(), "sizes": sizes}))
    sys.exit(not passed)


if __name__ == "__main__":
    main()
