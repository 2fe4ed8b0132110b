"""The file of tenants, and what each of them has of its own."""

import re
from pathlib import Path
from typing import Any

import pytest

from service import __main__ as program
from service.settings import Settings, SetupError
from service.tenants import read_tenants, settings_of
from tests.service.command_line import invoke


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Two shops, each with a root."""
    for name in ("garden", "fashion"):
        (tmp_path / name / "releases").mkdir(parents=True)
    path = tmp_path / "tenants.toml"
    path.write_text(
        f"""
        [garden]
        releases = "{tmp_path}/garden"
        [fashion]
        releases = "{tmp_path}/fashion"
        rate_limit = "5/second"
        admin_key = "open up"
        """
    )
    return path


def test_a_tenant_has_the_common_settings_but_for_its_own(file: Path) -> None:
    common = Settings(tenants=file, root_path="/shops", redis_prefix="p", admin_key="sesam", port=1)
    tenants = read_tenants(common, program.sentences)
    garden, fashion = (settings_of(common, name, tenants[name]) for name in ("garden", "fashion"))

    assert (garden.port, garden.rate_limit) == (1, None)
    assert (garden.root_path, garden.redis_prefix) == ("/shops/t/garden", "p:garden")
    assert garden.admin_key is not None
    assert garden.admin_key.get_secret_value() == "sesam"
    assert garden.releases == file.parent / "garden"
    assert (fashion.rate_limit, fashion.redis_prefix) == ("5/second", "p:fashion")
    assert fashion.admin_key is not None
    assert fashion.admin_key.get_secret_value() == "open up"


def test_a_tenants_secret_may_stand_in_a_file(file: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("in a file\n")
    common = Settings(tenants=file, admin_key="sesam")
    own = {"releases": tmp_path / "garden", "admin_key_file": str(tmp_path / "secret")}
    key = settings_of(common, "garden", own).admin_key
    assert key is not None
    assert key.get_secret_value() == "in a file"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no tenant; write a table for each"),
        ("[", "cannot be read"),
        ("garden = 1", "[garden]: not a table; write [garden], and its settings below"),
        ("[garden]", "[garden]: releases: not given"),
        ('[Garden]\nreleases = "x"', "[Garden]: not a name of a tenant; it has 1 to 32 lower-case"),
        ('["a/b"]\nreleases = "x"', "[a/b]: not a name of a tenant"),
        ('["a:b"]\nreleases = "x"', "[a:b]: not a name of a tenant"),
        ('[garden]\nreleases = "x"\nport = 1', "[garden]: port: the same for all tenants; set it"),
        ('[garden]\nreleases = "x"\nredis_prefix = "re4:b"', "redis_prefix: the same for all"),
        ('[garden]\nreleases = "x"\nrate_limit = "5"', "[garden]: --rate-limit (RE4_RATE_LIMIT)"),
        ('[garden]\nreleases = "x"\ncolour = "red"', "[garden]: colour: unknown setting"),
        ('[garden]\nreleases = "/none"', "[garden]: --releases: /none: no such folder"),
        ('[a]\nreleases = "R"\n[b]\nreleases = "R/../garden"', "[b]: releases: R/../garden is a's"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused(file: Path, text: str, message: str) -> None:
    file.write_text(text.replace("R", str(file.parent / "garden")))
    message = message.replace("R/", f"{file.parent / 'garden'}/")
    with pytest.raises(SetupError, match=re.escape(message)) as refused:
        read_tenants(Settings(tenants=file), program.sentences)
    assert str(refused.value).startswith(f"--tenants: {file}: ")


def test_the_root_and_the_file_are_not_both_given(file: Path, tmp_path: Path) -> None:
    code, output = invoke(program.main, "--releases", str(tmp_path), "--tenants", str(file))
    assert (code, "--tenants and --releases: both given" in output) == (2, True)
    code, output = invoke(program.main, "--tenants", str(tmp_path / "none"))
    assert (code, f"--tenants: {tmp_path / 'none'}: cannot be read" in output) == (2, True)


def test_each_tenant_needs_keys_where_others_can_reach_it(file: Path, tmp_path: Path) -> None:
    """With the common file of keys, or one of its own."""
    (tmp_path / "keys").write_text("")
    with pytest.raises(SetupError, match=r"\[garden\]: --host: 0.0.0.0 can be reached"):
        read_tenants(Settings(tenants=file, host="0.0.0.0"), program.sentences)
    common: dict[str, Any] = {"tenants": file, "host": "0.0.0.0"}
    assert read_tenants(Settings(**common, keys_file=tmp_path / "keys"), program.sentences)
    text = file.read_text()
    keys = f'keys_file = "{tmp_path / "keys"}"\n'
    file.write_text(re.sub(r"(releases = .*\n)", rf"\1{keys}", text))
    assert read_tenants(Settings(**common), program.sentences)


@pytest.mark.parametrize("tenant", ["garden", "*"])
def test_a_key_is_made_for_a_tenant(tenant: str) -> None:
    code, output = invoke(program.main, "new-key", "--role", "read", "--tenant", tenant)
    assert code == 0
    assert re.search(rf"^line  read [0-9a-f]{{64}} {re.escape(tenant)}$", output, re.MULTILINE)
    code, output = invoke(program.main, "new-key", "--role", "read", "--tenant", "A b")
    assert (code, "--tenant: A b: a name has 1 to 32" in output) == (2, True)
