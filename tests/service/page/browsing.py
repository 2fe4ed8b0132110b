"""A headless Chromium, and what is checked of every page in it."""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

# Widths of a phone and of a desk, each in one of the themes.
VIEWS = ((390, 844, "dark"), (1280, 900, "light"))
PARTS = ("try", "releases", "nights", "traffic")
_SERIOUS = ("serious", "critical")


def missing() -> str | None:
    """Why no browser can be driven here, and what to do; None if one can."""
    for library in ("playwright", "axe_playwright_python"):
        if find_spec(library) is None:
            return f"{library} is not installed; run: pip install 're4[browser]'"
    if shutil.which("chromium") is None:
        return "there is no chromium; on Debian: apt-get install chromium"
    return None


@contextmanager
def chromium() -> Iterator[Any]:
    """The browser; without its sandbox for root, for whom it has none."""
    from playwright.sync_api import sync_playwright

    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=arguments
        )
        yield browser
        browser.close()


@contextmanager
def opened(browser: Any, url: str, width: int, height: int, theme: str) -> Iterator[Any]:
    """A page of that size, which must log nothing: no error, and no breach of its policy."""
    context = browser.new_context(
        viewport={"width": width, "height": height}, color_scheme=theme, has_touch=width < 700
    )
    page, logged = context.new_page(), []
    page.on("console", lambda message: logged.append(message.text))
    page.on("pageerror", lambda error: logged.append(str(error)))
    page.goto(url)
    yield page
    context.close()
    assert [line for line in logged if "status of 401" not in line] == []


def answered(page: Any, count: int = 1) -> None:
    """Wait until that many answers have been shown since the page was opened."""
    page.wait_for_selector(f"html[data-updates='{count}']", state="attached")


def after(page: Any, act: Callable[[], object]) -> None:
    """Act, and wait for the answer to be shown."""
    count = int(page.locator("html").get_attribute("data-updates"))
    act()
    answered(page, count + 1)


def show(page: Any, part: str) -> None:
    page.locator(f"nav a[href='#{part}']").click()
    page.locator(f"#{part}").wait_for(state="visible")


def check_accessible(page: Any) -> None:
    """No serious finding of axe, and nothing to scroll sideways."""
    from axe_playwright_python.sync_playwright import Axe

    page.wait_for_timeout(200)  # until nothing fades in, which axe would see as a pale colour
    found = Axe().run(page).response["violations"]
    assert [
        (finding["id"], [node["html"][:200] for node in finding["nodes"]])
        for finding in found
        if finding["impact"] in _SERIOUS
    ] == []
    widths = page.evaluate("[document.documentElement.scrollWidth, window.innerWidth]")
    assert widths[0] <= widths[1]
