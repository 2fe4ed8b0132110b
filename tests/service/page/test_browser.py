"""The page in a real browser: every control, by keyboard too, at two widths, in both themes.

`make evidence-page` runs them all; without a browser all are skipped.
"""

import time
import urllib.request
from collections.abc import Iterator
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import httpx
import pytest

from index.release.canary_release import start_canary
from tests.service.conftest import ADMIN_KEY, server_process
from tests.service.page.browsing import (
    PARTS,
    VIEWS,
    after,
    answered,
    check_accessible,
    chromium,
    missing,
    opened,
    show,
)
from tests.service.page.conftest import write_root

pytestmark = pytest.mark.skipif(missing() is not None, reason=str(missing()))
WIDE = VIEWS[1]
slow = pytest.mark.slow


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as started:
        yield started


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    root = tmp_path_factory.mktemp("root")
    write_root(root)
    with server_process(root, admin_key=ADMIN_KEY) as served:
        for item in ("item-4", "item-9", "item-2"):
            event = {"user_id": "anna", "item_id": item}
            httpx.post(f"{served}/events", json=event).raise_for_status()
        yield served


def titles(page: Any, of: str) -> list[str]:
    found: list[str] = page.locator(f"{of} .title").all_inner_texts()
    return found


@slow
@pytest.mark.parametrize("view", VIEWS, ids=str)
def test_each_part_is_accessible(browser: Any, url: str, view: tuple[int, int, str]) -> None:
    with opened(browser, url, *view) as page:
        answered(page)
        page.locator("#candidates summary").first.click()
        page.locator("#filter summary").click()
        after(page, lambda: page.select_option("#other", "first"))
        page.fill("#search", "tea")
        page.wait_for_selector("#found li")
        check_accessible(page)
        for part in PARTS[1:]:
            show(page, part)
            page.locator(f"#{part}-content table").first.wait_for()
            check_accessible(page)
            link = page.locator(f"nav a[href='#{part}']")
            assert link.get_attribute("aria-current") == "page"
        show(page, "try")
        page.click("#enter-key")
        check_accessible(page)


@pytest.mark.parametrize("view", [pytest.param(VIEWS[0], marks=slow), WIDE], ids=str)
def test_a_history_is_put_together(browser: Any, url: str, view: tuple[int, int, str]) -> None:
    with opened(browser, url, *view) as page:
        answered(page)
        assert titles(page, "#history") == ["Green tea 1", "Oolong tea 2"]
        after(page, lambda: page.click("#example"))
        assert titles(page, "#history") == ["Cast-iron teapot 1"]
        after(page, lambda: page.click("#clear"))
        assert "popular items" in page.inner_text("#answer-note")
        assert titles(page, "#history") == []

        page.focus("#search")
        page.keyboard.type("LOCO")
        page.wait_for_selector("#found [aria-selected=true]")
        page.keyboard.press("ArrowDown")
        chosen = page.locator("#search").get_attribute("aria-activedescendant")
        title = page.inner_text(f"#{chosen} .title")
        after(page, lambda: page.keyboard.press("Enter"))
        assert titles(page, "#history") == [title] == ["Steam locomotive 2"]

        first = titles(page, "#candidates")[0]
        after(page, lambda: page.locator("#candidates .add").first.click())
        assert titles(page, "#history") == [title, first]
        assert first not in titles(page, "#candidates")
        assert page.evaluate("document.activeElement.id") == "candidates-title"
        after(page, lambda: page.locator("#history button").first.click())
        assert titles(page, "#history") == [first]

        page.fill("#user", "anna")
        after(page, lambda: page.keyboard.press("Enter"))
        assert titles(page, "#history") == [
            "Steam locomotive 1",
            "Steam locomotive 2",
            "Oolong tea 1",
        ]
        assert "3 stored items" in page.inner_text("#history-note")

        page.fill("#search", "nothing of the kind")
        page.wait_for_selector("#found >> text=No such item")
        page.keyboard.press("Escape")
        assert page.input_value("#search") == ""


@slow
def test_candidates_follow_the_controls(browser: Any, url: str) -> None:
    with opened(browser, url, *WIDE) as page:
        answered(page)
        shown = page.locator("#candidates > li")
        assert shown.count() == 20
        after(page, lambda: page.locator("#k").fill("7"))
        assert shown.count() == 7
        assert page.inner_text("#k-now") == "7"
        plain = titles(page, "#candidates")
        after(page, lambda: page.locator("#diversity").fill("1"))
        assert page.inner_text("#diversity-now") == "1"
        categories = page.locator("#candidates .badge + span").all_inner_texts()
        assert len(set(categories[:4])) > 2
        assert titles(page, "#candidates") != plain

        page.locator("#filter summary").click()
        after(page, lambda: page.check("label:has-text('category 1') input"))
        assert set(page.locator("#candidates .badge + span").all_inner_texts()) == {"category 1"}
        assert page.inner_text("#filter-now") == "only category 1"
        after(page, lambda: page.select_option("#filter-mode", "deny"))
        assert "category 1" not in page.locator("#candidates .badge + span").all_inner_texts()


@slow
def test_an_interest_is_named_coloured_and_explained(browser: Any, url: str) -> None:
    with opened(browser, url, *WIDE) as page:
        answered(page)
        chips = page.locator("#interests button")
        assert chips.count() == 3
        classes = page.locator("#candidates > li").evaluate_all("all => all.map(e => e.className)")
        badges = page.locator("#candidates .badge").all_inner_texts()
        for class_name, badge in zip(classes, badges, strict=True):
            assert class_name == f"candidate i{int(badge.split()[0]) - 1}"

        page.locator("#candidates summary").first.click()
        page.wait_for_selector("#candidates .why")
        why = page.locator("#candidates .why").first
        assert f"Found by interest {badges[0]}" in why.inner_text()
        assert why.locator(".scores li").count() == 3
        assert why.locator(".attended li").count() == 2
        assert page.locator("#map .interest").count() == 3
        assert page.locator("#map .found").count() == 20
        assert page.locator("#map .taken").count() == 2

        number = int(badges[0].split()[0])
        chips.nth(number - 1).click()
        assert chips.nth(number - 1).get_attribute("aria-pressed") == "true"
        assert set(page.locator("#candidates .badge").all_inner_texts()) == {badges[0]}
        assert page.locator("#map .interest").count() == 1
        chips.nth(number - 1).click()
        assert page.locator("#candidates > li").count() == 20

        box = page.locator("#map .taken").first.bounding_box()
        page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
        assert page.inner_text("#map-pointed") != "Point at a dot to see its title."


@slow
def test_releases_are_compared_and_rolled_back(browser: Any, url: str) -> None:
    with opened(browser, url, *WIDE) as page:
        answered(page)
        after(page, lambda: page.select_option("#other", "first"))
        assert page.locator("#other-candidates > li").count() == 20
        both = page.locator("#candidates .both").count()
        assert page.locator("#other-candidates .both").count() == both
        assert page.inner_text("#compared-title") == f"first: {both} of 20 in both"
        before = titles(page, "#other-candidates")

        show(page, "releases")
        back = page.get_by_role("button", name="Roll back to first")
        back.click()
        page.click("#confirm-dialog button[value=no]")
        assert httpx.get(f"{url}/release").json()["release"]["id"] == "second"
        back.click()
        page.click("#confirm-dialog button[value=yes]")
        page.wait_for_selector("#key-dialog[open]")  # rolling back needs the admin key
        page.fill("#key", ADMIN_KEY)
        page.keyboard.press("Enter")
        page.wait_for_selector("#key-dialog", state="hidden")
        back.click()
        page.click("#confirm-dialog button[value=yes]")
        page.wait_for_selector("th:has-text('first') .tag")
        show(page, "try")
        assert "first" in page.inner_text("#serving")
        assert titles(page, "#candidates") == before
        headers = {"authorization": f"Bearer {ADMIN_KEY}"}
        httpx.post(f"{url}/page/rollback", json={"to": "second"}, headers=headers)


@slow
def test_nights_and_traffic_are_shown(browser: Any, url: str) -> None:
    with opened(browser, f"{url}/#nights", *WIDE) as page:
        night = page.locator("#nights-content article")
        night.wait_for()
        for text in ("refused", "recall@50 is too low", "few users", "512 users", "0.1800"):
            assert text in night.inner_text()

        show(page, "traffic")
        page.wait_for_selector("#traffic-content table")
        for _ in range(20):
            httpx.post(f"{url}/recommend", json={"sequence": ["item-1"]}).raise_for_status()
        page.wait_for_selector("#traffic-content dd:has-text('ms')", timeout=15_000)
        page.wait_for_selector("#traffic-content .sparkline", timeout=15_000)
        routes = page.locator("#traffic-content tbody th").all_inner_texts()
        assert "/recommend" in routes
        assert not any("page" in route for route in routes)


@slow
def test_the_live_quality_is_shown_and_that_of_a_canary_beside_it(
    browser: Any, tmp_path: Path
) -> None:
    write_root(tmp_path)
    start_canary(tmp_path, "first", 0.5)
    window_s = 5
    settings = {"canary_window_hours": window_s / 3600, "quality_sample_rate": 1}
    with server_process(tmp_path, **settings) as url:
        while "re4_canary_share 0.5" not in httpx.get(f"{url}/metrics").text:
            time.sleep(0.1)  # until the test's own timeout
        for number in range(60):
            wanted = {"user_id": f"user-{number}", "sequence": ["item-1"], "k": 5}
            answer = httpx.post(f"{url}/recommend", json=wanted).raise_for_status().json()
            if number % 3 == 0:
                event = {"user_id": f"user-{number}", "item_id": answer["items"][0]["item_id"]}
                httpx.post(f"{url}/events", json=event).raise_for_status()
        with opened(browser, f"{url}/#traffic", *WIDE) as page:
            users = page.locator("#canary td:nth-child(2)")
            while sum(map(int, users.all_inner_texts())) < 60:  # until their windows have ended
                time.sleep(0.5)
            rows = page.locator("#canary tbody tr")
            assert "between" in page.inner_text("#canary caption")
            assert "50 % of the users" in page.inner_text("#canary caption")
            cells = [row.locator("th, td").all_inner_texts() for row in rows.all()]
            live = page.locator("#live tbody tr").first.locator("th, td").all_inner_texts()
    low, high = (float(bound.removesuffix(" %")) for bound in live[2:])
    assert live[0] == "All"
    assert low < float(live[1].removesuffix(" %")) < high
    heads = ["Live release", "Canary"]
    assert [row[0] for row in cells] == heads
    shares = [float(row[2].removesuffix(" %")) * int(row[1]) / 100 for row in cells]
    assert sum(shares) == pytest.approx(20, abs=1)


@slow
def test_the_theme_is_switched(browser: Any, url: str) -> None:
    with opened(browser, url, 1280, 900, "light") as page:
        colour = "getComputedStyle(document.body).backgroundColor"
        light = page.evaluate(colour)
        for label, is_light in (("light", True), ("dark", False), ("system", True)):
            page.click("#theme")
            assert page.inner_text("#theme") == f"Theme: {label}"
            assert (page.evaluate(colour) == light) is is_light


@slow
def test_the_key_is_asked_for_and_kept_in_memory_alone(
    browser: Any, tmp_path: Path, root: Path
) -> None:
    write_root(root)
    keys = root / "keys"
    keys.write_text(f"read {sha256(b'sesam').hexdigest()}\n")
    with (
        server_process(root, keys_file=keys, page="on") as served,
        opened(browser, served, *WIDE) as page,
    ):
        page.wait_for_selector("#key-dialog[open]")
        page.fill("#key", "wrong")
        page.keyboard.press("Enter")
        page.wait_for_selector("#problem:not([hidden])")
        page.wait_for_selector("#key-dialog[open]")
        page.fill("#key", "sesam")
        page.click("#key-dialog button[value=use]")
        answered(page)
        assert page.locator("#problem").is_hidden()
        kept = "[localStorage.length, sessionStorage.length, document.cookie, location.href]"
        assert page.evaluate(kept) == [0, 0, "", f"{served}/"]
        assert page.input_value("#key") == ""
        page.reload()
        page.wait_for_selector("#key-dialog[open]")
        page.click("#key-dialog button[value=cancel]")
        assert page.locator("#candidates > li").count() == 0


class _PrefixProxy(BaseHTTPRequestHandler):
    """Passes on what is below /shop/re4, without that; nothing else is there."""

    server_url = ""

    def do_GET(self) -> None:
        if not self.path.startswith("/shop/re4/"):
            self.send_error(404)
            return
        length = int(self.headers.get("content-length", 0))
        body = self.rfile.read(length) if length else None
        names = ("content-type", "origin", "accept")
        headers = {name: self.headers[name] for name in names if name in self.headers}
        target = self.server_url + self.path.removeprefix("/shop/re4")
        request = urllib.request.Request(target, body, headers, method=self.command)
        with urllib.request.urlopen(request) as response:
            content = response.read()
            self.send_response(response.status)
            for name in ("content-type", "content-security-policy"):
                if name in response.headers:
                    self.send_header(name, response.headers[name])
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_POST = do_GET  # noqa: N815

    def log_message(self, *_: object) -> None:
        """Nothing."""


@slow
def test_page_and_documentation_work_below_a_path_prefix(browser: Any, root: Path) -> None:
    write_root(root)
    with server_process(root, root_path="/shop/re4") as served:
        handler = type("Proxy", (_PrefixProxy,), {"server_url": served})
        with ThreadingHTTPServer(("127.0.0.1", 0), handler) as proxy:
            Thread(target=proxy.serve_forever).start()
            try:
                prefixed = f"http://127.0.0.1:{proxy.server_port}/shop/re4/"
                with opened(browser, prefixed, *WIDE) as page:
                    answered(page)
                    assert page.locator("#candidates > li").count() == 20
                    page.click("#docs")
                    page.wait_for_selector(".opblock")
                    assert page.input_value(".servers select") == "/shop/re4"
            finally:
                proxy.shutdown()
