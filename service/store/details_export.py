"""What the shop has said about items, from Redis to a file: for the next training."""

from pathlib import Path

import orjson

from index.release.atomic_io import atomic_path
from service.store.item_details import details_of
from service.store.keys import Keys
from service.store.redis_url import Client

FILE = "_item-details.jsonl"  # beside the events, whose readers skip what begins with a _
_BATCH = 500  # items in one round trip


async def export_details(client: Client, keys: Keys, folder: Path) -> int:
    """Replace the file in the folder by all details of now; the number of items.

    A line for each item: item_id, title, categories and attributes, null or absent where the shop
    has said nothing. Without details there is a file only if there was one.
    """
    items = sorted([item async for item, _ in client.zscan_iter(keys.details, count=_BATCH)])
    if not items and not (folder / FILE).exists():
        return 0
    with atomic_path(folder / FILE) as path, path.open("wb") as file:
        for first in range(0, len(items), _BATCH):
            ids = [item.decode("utf-8", "replace") for item in items[first : first + _BATCH]]
            pipeline = client.pipeline(transaction=False)
            for item in ids:
                pipeline.hgetall(keys.details_of(item))
            for item, stored in zip(ids, await pipeline.execute(), strict=True):
                details = details_of(stored)
                line = {
                    "item_id": item,
                    "title": details.title,
                    "categories": details.categories,
                    "attributes": details.attributes,
                }
                file.write(orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE))
    return len(items)
