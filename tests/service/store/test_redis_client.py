"""The settings choose the Redis, and a URL that cannot be parsed is refused in one sentence."""

from collections.abc import Callable
from pathlib import Path

import pytest
from pydantic import SecretStr
from redis.asyncio import Redis

from service.settings import Settings, SetupError
from service.store.redis_client import deployment_of
from service.store.redis_url import Cluster, Embedded, SentinelMaster, Standalone

MakeSettings = Callable[..., Settings]


def test_the_settings_name_the_deployment(settings: MakeSettings) -> None:
    assert type(deployment_of(settings(redis_url="rediss://somewhere:1"))) is Standalone
    assert (
        type(deployment_of(settings(redis_url="redis+sentinel://a:1,b/name?db=2")))
        is SentinelMaster
    )
    assert type(deployment_of(settings(redis_url="rediss+cluster://a:1,b"))) is Cluster
    embedded = deployment_of(Settings(releases=Path("root")))
    assert isinstance(embedded, Embedded)
    client = embedded.client()
    assert isinstance(client, Redis)
    assert client.connection_pool.connection_kwargs["path"] == "root/history/redis.sock"


def test_a_url_that_cannot_be_parsed_is_a_setup_error(settings: MakeSettings) -> None:
    invalid = settings().model_copy(update={"redis_url": SecretStr("http://:hunter2@a")})
    with pytest.raises(SetupError, match="--redis-url: the URL must start with one of") as raised:
        deployment_of(invalid)
    assert "hunter2" not in str(raised.value)
