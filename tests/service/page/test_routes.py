"""Where the page is served, and what it may load."""

import re
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from hashlib import sha256
from pathlib import Path

import httpx
import pytest

import service.page
from service.settings import Settings

pytestmark = pytest.mark.anyio

Serve = Callable[..., AbstractAsyncContextManager[httpx.AsyncClient]]
ASSETS = Path(service.page.__file__).parent / "assets"


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    file = tmp_path / "keys"
    file.write_text(f"read {sha256(b'key').hexdigest()}\n")
    return file


@pytest.mark.parametrize(
    ("page", "with_keys", "status"),
    [("auto", False, 200), ("auto", True, 404), ("on", True, 200), ("off", False, 404)],
)
async def test_the_page_is_off_where_keys_are_needed_unless_allowed(
    serve: Serve, keys: Path, page: str, with_keys: bool, status: int
) -> None:
    async with serve(page=page, keys_file=keys if with_keys else None) as client:
        for path in ("/", "/page/assets/app.js"):
            assert (await client.get(path)).status_code == status
        setup = await client.get("/page/setup", headers={"authorization": "Bearer key"})
    assert setup.status_code == status


async def test_the_page_loads_its_own_files_alone(serve: Serve) -> None:
    async with serve() as client:
        page = await client.get("/")
        policy = page.headers["content-security-policy"]
        urls = re.findall(r'(?:src|href)="([^"#]+)"', page.text)
        for url in urls:
            assert (await client.get(url)).status_code == 200, url
    assert "default-src 'self'" in policy
    assert "unsafe" not in policy
    assert "http" not in policy
    assert len(urls) > 5
    assert re.findall(r"<style|<script>|\bstyle=|\bon\w+=", page.text) == []


@pytest.mark.parametrize("path", sorted(ASSETS.iterdir()), ids=lambda path: path.name)
def test_no_file_names_another_host_or_makes_html_of_text(path: Path) -> None:
    text = path.read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")
    assert re.findall(r"https?://|innerHTML|insertAdjacentHTML|document\.write|eval\(", text) == []


async def test_files_are_served_again_only_if_they_changed(serve: Serve) -> None:
    async with serve() as client:
        first = await client.get("/page/assets/app.js")
        unchanged = {"if-none-match": first.headers["etag"]}
        second = await client.get("/page/assets/app.js", headers=unchanged)
        missing = await client.get("/page/assets/nothing.js")
        outside = await client.get("/page/assets/..%2Froutes.py")
    assert first.headers["content-type"].split(";")[0].endswith("/javascript")
    assert second.status_code == 304
    assert missing.status_code == outside.status_code == 404
    assert missing.json()["error"]["code"] == "not_found"


@pytest.mark.parametrize("prefix", ["", "/shop/re4"])
async def test_under_a_path_prefix_all_addresses_are_right(serve: Serve, prefix: str) -> None:
    """The client is a proxy that takes the prefix off, as the browser follows what it is given."""
    async with serve(root_path=prefix) as client:

        async def get(path: str) -> httpx.Response:
            assert path.startswith(f"{prefix}/"), path
            return await client.get(path.removeprefix(prefix))

        for page in (f"{prefix}/", f"{prefix}/docs"):
            text = (await get(page)).text
            urls = re.findall(r'(?:src|href)="([^"#]+)"', text)
            urls += re.findall(r"url: '(.*?)'", text)
            fetched = [url for url in urls if not url.startswith("data:")]
            assert len(fetched) >= 3
            for url in fetched:
                assert (await get(url)).status_code == 200, url
        document = (await get(f"{prefix}/openapi.json")).json()
        passed_on_whole = await client.get(f"{prefix}/page/setup")
    servers = document.get("servers", [{"url": ""}])
    assert [server["url"] for server in servers] == [prefix]
    assert passed_on_whole.status_code == 200


@pytest.mark.parametrize("path", ["shop", "/shop/../x", "//", "/a b", "https://x/y", "/x?y"])
def test_a_prefix_that_is_no_path_is_refused(root: Path, path: str) -> None:
    if path == "//":
        assert Settings(releases=root, root_path=path).root_path == ""
        return
    with pytest.raises(ValueError, match="root_path"):
        Settings(releases=root, root_path=path)
