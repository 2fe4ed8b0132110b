"""The TypeScript client: generated, compiled, installed and used against a real server."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.service.client.test_client import KEY
from tests.service.conftest import server_process
from tests.service.shops import SHOPS, write_shops

SOURCE = Path(__file__).parents[3] / "service" / "client" / "typescript"
GENERATED = ("dist", "node_modules", "openapi.json", "schema.d.ts", "*.tgz")

# Types are part of the test: tsc refuses a field or path that the document does not have.
PROGRAM = """
import { connect, type Schemas } from "re4-client";

const client = connect(process.env.URL!, process.env.KEY);
const body: Schemas["RecommendRequest"] = {
  sequence: ["item-1"], k: 3,
  boost: [{ filter: { all: [{ price: { lte: 50 } }] }, add: 0.5 }], interest_quota: 3,
  min_per_category: { books: 1 }, min_new_items: 1,
};
const { data } = await client.POST("/recommend", { body });
const ids: string[] = data!.items.map((item) => item.item_id);
// @ts-expect-error: neither a user nor a sequence
const none: Schemas["RecommendRequest"] = { k: 3 };
const { error, response } = await client.GET("/items/{item_id}/similar", {
  params: { path: { item_id: "no such/item" }, query: { k: 2 } },
});
const reload = await client.POST("/admin/reload");
const stranger = await connect(process.env.URL!, "wrong").POST("/admin/reload");
// @ts-expect-error: k is a number
const bad: Schemas["RecommendRequest"] = { sequence: [], k: "3" };
const shop = connect(process.env.SHOP_URL!);
const event: Schemas["Event"] = { user_id: "anna", item_id: "item-1" };
const added = await shop.POST("/events", { body: event });
const answer = await shop.POST("/recommend", { body: { user_id: "anna", k: 2 } });
console.log(JSON.stringify([added.data!.accepted, answer.data!.release]));
console.log(
  JSON.stringify([
    ids, response.status, error!.error.code, reload.response.status, stranger.response.status,
    bad.k, none.k,
  ]),
);
"""


def run(*command: str, cwd: Path, **variables: str) -> str:
    ended = subprocess.run(
        command, cwd=cwd, env={**os.environ, **variables}, capture_output=True, text=True
    )
    assert ended.returncode == 0, f"{command}: {ended.stdout}\n{ended.stderr}"
    return ended.stdout


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """The package as `make typescript-client` packs it."""
    if shutil.which("npm") is None:
        pytest.skip("npm is not installed")
    folder = tmp_path / "typescript"
    shutil.copytree(SOURCE, folder, ignore=shutil.ignore_patterns(*GENERATED))
    document = run(sys.executable, "-m", "service", "openapi", cwd=Path.cwd())
    (folder / "openapi.json").write_text(document, encoding="utf-8")
    reachable = subprocess.run(["npm", "ping"], cwd=folder, capture_output=True, timeout=60)
    if reachable.returncode:
        pytest.skip("the npm registry cannot be reached")
    run("npm", "ci", "--no-audit", "--no-fund", cwd=folder)
    run("npm", "run", "generate", cwd=folder)
    packed = run("npm", "pack", "--silent", cwd=folder).split()[-1]
    return folder / packed


def test_it_is_generated_installed_and_used(package: Path, server_url: str, tmp_path: Path) -> None:
    project = tmp_path / "project"
    project.mkdir()
    (project / "package.json").write_text('{"type": "module"}')
    (project / "try.ts").write_text(PROGRAM, encoding="utf-8")
    run("npm", "install", "--no-audit", "--no-fund", str(package), cwd=project)
    tsc = package.parent / "node_modules" / ".bin" / "tsc"
    (project / "node.d.ts").write_text("declare const process: { env: Record<string, string> };")
    options = ("--strict", "--target", "es2022", "--module", "nodenext")
    run(str(tsc), *options, "try.ts", "node.d.ts", cwd=project)
    with server_process(None, len(SHOPS), tenants=write_shops(tmp_path)) as shops:
        urls = {"URL": server_url, "SHOP_URL": f"{shops}/t/garden/"}
        of_shop, printed = run("node", "try.js", cwd=project, KEY=KEY, **urls).splitlines()
    assert of_shop == '[1,"garden"]'
    assert printed.startswith('[["item-')
    assert printed.endswith('404,"unknown_item",200,401,"3",3]')
