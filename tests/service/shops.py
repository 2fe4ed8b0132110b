"""Several shops below one folder, as a file of tenants names them."""

from collections.abc import Mapping
from pathlib import Path

from index.release.atomic_io import replace_text
from index.release.manifest import CURRENT, RELEASES
from tests.service.conftest import write_release

SHOPS = ("garden", "fashion", "books")


def write_shops(folder: Path, more: Mapping[str, str] | None = None) -> Path:
    """A root for each, whose release has its name; the file. more: by shop, further TOML."""
    text = ""
    for name in SHOPS:
        publish(folder / name, name)
        text += f'[{name}]\nreleases = "{folder / name}"\n{(more or {}).get(name, "")}\n'
    file = folder / "tenants.toml"
    file.write_text(text)
    return file


def publish(root: Path, release_id: str) -> None:
    if not (root / RELEASES / release_id).exists():
        write_release(root / RELEASES / release_id, release_id)
    replace_text(root / CURRENT, f"{release_id}\n")
