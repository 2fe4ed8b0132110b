"""The names of all keys in Redis. Each begins with the setting redis-prefix.

Users are divided among 64 partitions by CRC-32 of their id. The keys of a partition have its number
as their hash tag: they are on one server of a Cluster, and one script changes all of them or none.
"""

from zlib import crc32

PARTITIONS = 64


class Keys:
    """The names under one prefix. Two services with different prefixes share nothing.

    owner: see service.store.ownership; others: see the modules that use them.
    """

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self.owner = f"{prefix}:owner"
        self.probe = f"{prefix}:probe"
        self.streams = tuple(f"{prefix}:{{{number}}}:events" for number in range(PARTITIONS))
        self.unexported = tuple(f"{prefix}:{{{number}}}:waiting" for number in range(PARTITIONS))
        availability = f"{prefix}:{{withdrawn}}"
        self.withdrawn = f"{availability}:items"
        self.version = f"{availability}:version"
        self.changes = f"{availability}:changes"
        self.unknown = f"{availability}:unknown"
        self.announced = f"{availability}:announced"
        self.expiry = f"{availability}:expiry"
        self.details = f"{availability}:details"
        self._newcomers = f"{prefix}:{{newcomers}}"
        self.newcomers = f"{self._newcomers}:items"
        self.takes = f"{self._newcomers}:takes"

    @staticmethod
    def partition_of(user_id: str) -> int:
        return crc32(user_id.encode()) % PARTITIONS

    def quality(self, partition: int, run: str) -> str:
        """The counts of a partition's users in a run of a canary."""
        return f"{self._prefix}:{{{partition}}}:quality:{run}"

    def of_run(self, run: str, name: str) -> str:
        """Another key of a run of a canary."""
        return f"{self._prefix}:{{run}}:{name}:{run}"

    def of_user(self, user_id: str, name: str) -> str:
        """A key of the user, or one of the user's partition: events or waiting."""
        key = f"{self._prefix}:{{{self.partition_of(user_id)}}}:{name}"
        return key if name in ("events", "waiting") else f"{key}:{user_id}"

    def of_pages(self, cursor_id: str) -> str:
        """What the pages of a cursor have shown."""
        return f"{self._prefix}:{{{self.partition_of(cursor_id)}}}:pages:{cursor_id}"

    def details_of(self, item_id: str) -> str:
        """What a shop has said about an item."""
        return f"{self.details}:{item_id}"

    def users_of(self, item_id: str) -> str:
        """The users of an item that the release does not know."""
        return f"{self._newcomers}:of:{item_id}"
