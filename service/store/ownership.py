"""Whose data a Redis holds: the id of a root is in a file there, and in Redis under the prefix.

{prefix}:owner  the id of the root of releases whose services use these keys

The first service of a root claims a Redis that nobody has claimed, also one that holds data of an
earlier version. A service of another root is refused, before it reads or writes anything.
"""

import logging
import os
from contextlib import suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

from redis.exceptions import ResponseError

from service.settings import StoreSettings
from service.store.keys import Keys
from service.store.redis_url import Client

ROOT_ID = "root-id"

# Starts with a write that a full Redis allows, so that it allows the others too.
_CLAIM = """
if redis.call('EXISTS', KEYS[1]) == 0 then
  redis.call('DEL', KEYS[1])
  redis.call('SET', KEYS[1], ARGV[1])
end
return redis.call('GET', KEYS[1])
"""

log = logging.getLogger(__name__)


class ForeignDataError(Exception):
    """Redis holds the data of another root under this prefix; the text says what to do."""


class Ownership:
    """Checks that the data in Redis belongs to this root. root: None checks nothing."""

    def __init__(self, settings: StoreSettings, root: Path | None) -> None:
        self._root = root
        self._prefix = settings.redis_prefix
        self._key = Keys(self._prefix).owner

    async def check(self, client: Client) -> None:
        """Raises ForeignDataError, or RedisError if Redis does not answer."""
        if self._root is None:
            return
        own_id = root_id(self._root)
        owner: Any = await client.get(self._key)
        if owner is None and own_id is not None:
            try:
                owner = await client.eval(_CLAIM, 1, self._key, own_id)
            except ResponseError as error:  # a read-only replica: there is nothing to protect
                log.warning("Redis is not claimed", extra={"error": type(error).__name__})
                return
        if owner is not None and owner.decode("utf-8", "replace") != own_id:
            raise ForeignDataError(
                f"--redis-prefix: {self._prefix}: this Redis holds the data of another root "
                f"under that prefix, not that of {self._root}; give another prefix or another "
                f"Redis. If the data is this root's, write {owner.decode('utf-8', 'replace')} "
                f"into {self._root / ROOT_ID}"
            )


def root_id(root: Path) -> str | None:
    """The id of the root, made by the first call; None if it has none and cannot be written."""
    path = root / ROOT_ID
    with suppress(OSError):
        if not path.exists():
            draft = root / f".{ROOT_ID}-{uuid4().hex}"
            draft.write_text(f"{uuid4().hex}\n", encoding="utf-8")
            try:
                with suppress(FileExistsError):  # another process was faster
                    os.link(draft, path)
            finally:
                draft.unlink()
        return path.read_text(encoding="utf-8", errors="replace").strip() or None
    return None
