"""Several shops of one process: the file that names them, and the settings of each.

    [garden]
    releases = "roots/garden"

    [fashion]
    releases = "roots/fashion"
    rate_limit = "500/second"

Each table is a tenant; its keys are settings that count for it alone. All others it has in common.
"""

import re
import tomllib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from service.settings import SECRETS, Settings, SetupError, check_root

Tenants = Mapping[str, Mapping[str, Any]]
Explain = Callable[[ValidationError], Iterator[str]]

_NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,30}[a-z0-9])?")
NAME_RULE = "1 to 32 lower-case letters, digits and -, with - only between others, such as shop-2"
# Of the process, or of all that is sent to it before its tenant is known.
_COMMON = frozenset(
    (
        *("config", "secrets_dir", "tenants", "host", "port", "root_path", "workers", "drain_s"),
        *("redis_prefix", "embedded_redis_folder", "log_level", "access_log", "tracing"),
        *("trusted_proxies", "allowed_hosts"),
    )
)
# Read once, with the settings that they stand for.
_SOURCES = ("config", "secrets_dir", "tenants", *(f"{secret}_file" for secret in SECRETS))


def is_tenant_name(name: str) -> bool:
    return _NAME.fullmatch(name) is not None


def read_tenants(settings: Settings, explain: Explain) -> Tenants:
    """What the file of tenants says of each, checked; nothing without a file.

    explain: the sentences for invalid settings. Raises SetupError.
    """
    file = settings.tenants
    if file is None:
        return {}
    try:
        tables = tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise SetupError(f"--tenants: {file}: cannot be read ({error})") from None
    if not tables:
        raise SetupError(f"--tenants: {file}: no tenant; write a table for each, such as [shop-2]")
    roots: dict[Path, str] = {}
    for name, table in tables.items():
        try:
            _check_table(name, table)
            tenant = settings_of(settings, name, table)
            check_root(tenant.releases)
            other = roots.setdefault(tenant.releases.resolve(), name)
            if other != name:
                raise SetupError(f"releases: {tenant.releases} is {other}'s; give each its own")
        except ValidationError as error:
            problems = "; ".join(explain(error))
            raise SetupError(f"--tenants: {file}: [{name}]: {problems}") from None
        except SetupError as error:
            raise SetupError(f"--tenants: {file}: [{name}]: {error}") from None
    return tables


def settings_of(common: Settings, name: str, own: Mapping[str, Any]) -> Settings:
    """The settings of one tenant: the common ones, but for its own.

    Raises ValidationError.
    """
    values: dict[str, Any] = {field: getattr(common, field) for field in Settings.model_fields}
    values |= dict.fromkeys(_SOURCES)
    values |= {secret: None for secret in SECRETS if f"{secret}_file" in own}
    given = Settings(**{**values, **own})
    return given.replaced(
        root_path=f"{common.root_path}/t/{name}", redis_prefix=f"{common.redis_prefix}:{name}"
    )


def _check_table(name: str, table: Any) -> None:
    """Raises SetupError."""
    if not is_tenant_name(name):
        raise SetupError(f"not a name of a tenant; it has {NAME_RULE}")
    if not isinstance(table, dict):
        raise SetupError(f"not a table; write [{name}], and its settings below")
    if common := sorted(_COMMON & table.keys()):
        raise SetupError(f"{', '.join(common)}: the same for all tenants; set it for the service")
    if "releases" not in table:
        raise SetupError("releases: not given; it is the tenant's folder of releases/ and current")
