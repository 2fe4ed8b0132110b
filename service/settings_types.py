"""The types of settings that are more than a number or a path: what is allowed, and in which form.

A value that could never work is refused at start, with one that does.
"""

import re
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator

from index.event_kinds import EventKinds


def _root(folder: Path) -> Path:
    """The folder given, or its parent if it is the releases/ folder beside `current`."""
    # Names of index.release, which would load torch before its threads are limited.
    has_current = (folder.parent / "current").is_file()
    return folder.parent if has_current and folder.name == "releases" else folder


def _rate(text: str) -> str:
    # Not at the top: a client reads MAX_K, and has none of the server's libraries.
    from limits import parse

    try:
        parse(text)
    except ValueError:
        raise ValueError("a rate is like 1000/second, 50/minute or 10/5 seconds") from None
    return text


_LABEL = r"[a-z0-9_](?:[a-z0-9_-]*[a-z0-9_])?"
_NAME = rf"{_LABEL}(?:\.{_LABEL})*"
_ORIGIN = re.compile(rf"https?://(?:{_NAME}|\[[0-9a-f:.]+\])(?::[1-9][0-9]{{0,4}})?")
_HOST = re.compile(rf"\*|(?:\*\.)?{_NAME}")
_DEFAULT_PORTS = {"http": ":80", "https": ":443"}


def _parts(text: str) -> list[str]:
    return [part.strip() for part in text.split(",")]


def _origins(text: str) -> str:
    for origin in (origins := _parts(text)):
        scheme = origin.partition(":")[0]
        is_default_port = origin.endswith(_DEFAULT_PORTS.get(scheme, " "))
        if origin != "*" and (is_default_port or not _ORIGIN.fullmatch(origin)):
            raise ValueError(
                "each origin must be like https://shop.example, as browsers send it: scheme, name "
                f"in lower case, port unless it is the default; or * for all{_suggestion(origin)}"
            )
    return ",".join(origins)


def _suggestion(origin: str) -> str:
    """The nearest valid origin, as part of a message; empty if there is none."""
    try:
        url = urlsplit(origin)
        host = (url.hostname or "").encode("idna").decode()
        port = f":{url.port}" if url.port else ""
    except (ValueError, UnicodeError):
        return ""
    nearest = f"{url.scheme}://{host}{port}".removesuffix(_DEFAULT_PORTS.get(url.scheme, " "))
    return f"; {nearest} would be one" if _ORIGIN.fullmatch(nearest) else ""


def _hosts(text: str) -> str:
    for host in (hosts := [part.lower() for part in _parts(text)]):
        if not _HOST.fullmatch(host):
            raise ValueError(
                "each host must be a name like shop.example or *.shop.example, without scheme, "
                "port or path; or * for all"
            )
    return ",".join(hosts)


def _proxies(text: str) -> str:
    for proxy in (proxies := _parts(text)):
        try:
            is_everyone = ip_network(proxy).prefixlen == 0
        except ValueError as error:
            raise ValueError(
                f"each proxy must be an address or a network, like 10.0.0.7 or 10.0.0.0/8 ({error})"
            ) from None
        if is_everyone:
            raise ValueError("all addresses at once cannot be trusted: each client could name any")
    return ",".join(proxies)


def _device(name: str) -> str:
    if not re.fullmatch(r"cpu|cuda:\d+", name):
        raise ValueError("a device is cpu, or cuda: and a number, such as cuda:0")
    return name


def _key_prefix(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,63}", text):
        raise ValueError("a prefix is 1 to 64 letters, digits and .:_-, such as re4 or shop-2")
    return text


def _root_path(text: str) -> str:
    path = text.rstrip("/")
    if path and not re.fullmatch(r"(/(?!\.+(?:/|$))[A-Za-z0-9._~-]+)+", path):
        raise ValueError("a path starts with / and has letters, digits and ._~-, such as /shop/re4")
    return path


def _event_effects(text: str) -> str:
    return ",".join(EventKinds.of(_parts(text)).parts)


Root = Annotated[Path, AfterValidator(_root)]
Rate = Annotated[str, AfterValidator(_rate)]
Origins = Annotated[str, AfterValidator(_origins)]
Hosts = Annotated[str, AfterValidator(_hosts)]
Proxies = Annotated[str, AfterValidator(_proxies)]
Device = Annotated[str, AfterValidator(_device)]
KeyPrefix = Annotated[str, AfterValidator(_key_prefix)]
RootPath = Annotated[str, AfterValidator(_root_path)]
EventEffects = Annotated[str, AfterValidator(_event_effects)]


def is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
