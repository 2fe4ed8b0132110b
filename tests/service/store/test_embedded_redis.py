"""The embedded Redis refuses a folder that it cannot use."""

from pathlib import Path

import pytest

from service.store.embedded_redis import EmbeddedRedis, EmbeddedRedisError


def test_a_folder_that_cannot_hold_a_socket_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        EmbeddedRedisError, match="at most 107; choose a shorter --embedded-redis-folder"
    ):
        EmbeddedRedis(tmp_path / ("x" * 200))
