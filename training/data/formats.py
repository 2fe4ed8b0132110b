"""The log formats by name; a new format is one entry here."""

from collections.abc import Mapping

from training.data.columns import FILE_ORDER, Columns, Format
from training.data.delimited import Delimited
from training.data.json_lines import JsonLines
from training.data.parquet import Parquet

NATIVE = Columns("user_id", "item_id", "timestamp", "event", "weight")
_RATINGS = Columns("user", "item", "timestamp", weight="rating")
_RATING_NAMES = ("user", "item", "rating", "timestamp")
_AMAZON_2023 = Columns("user_id", "parent_asin", "timestamp", weight="rating", time_unit="ms")
_YOOCHOOSE = Columns("session", "item", "time")

FORMATS: Mapping[str, Format] = {
    "csv": Delimited(NATIVE),
    "tsv": Delimited(NATIVE, "\t"),
    "json": JsonLines(NATIVE),
    "parquet": Parquet(NATIVE),
    "movielens-csv": Delimited(Columns("userId", "movieId", "timestamp", weight="rating")),
    # user::item::rating::timestamp, read as fields between single colons, every second one empty
    "movielens-dat": Delimited(_RATINGS, ":", ("user", "", "item", "", "rating", "", "timestamp")),
    "movielens-100k": Delimited(_RATINGS, "\t", _RATING_NAMES),
    "amazon-json": JsonLines(Columns("reviewerID", "asin", "unixReviewTime", weight="overall")),
    "amazon-csv-2014": Delimited(_RATINGS, names=_RATING_NAMES),
    "amazon-csv-2018": Delimited(_RATINGS, names=("item", "user", "rating", "timestamp")),
    "amazon-json-2023": JsonLines(_AMAZON_2023),
    "amazon-csv-2023": Delimited(_AMAZON_2023),
    "gowalla": Delimited(
        Columns("user", "location", "time"), "\t", ("user", "time", "lat", "lon", "location")
    ),
    "recbole": Delimited(Columns("user_id", "item_id", "timestamp", weight="rating"), "\t"),
    "retailrocket": Delimited(
        Columns("visitorid", "itemid", "timestamp", event="event", time_unit="ms")
    ),
    "rees46": Delimited(Columns("user_id", "product_id", "event_time", event="event_type")),
    "yoochoose": Delimited(_YOOCHOOSE, names=("session", "time", "item", "category")),
    "yoochoose-buys": Delimited(_YOOCHOOSE, names=("session", "time", "item", "price", "quantity")),
    "diginetica": Delimited(
        Columns(
            ("sessionId", "session_id"),
            ("itemId", "item_id"),
            "eventdate",
            offset_ms="timeframe",
        ),
        ";",
    ),
    "otto": JsonLines(Columns("session", "aid", "ts", event="type", time_unit="ms"), "events"),
    "taobao": Delimited(
        Columns("user", "item", "time", event="behavior"),
        names=("user", "item", "category", "behavior", "time"),
    ),
    "steam": JsonLines(Columns("username", "product_id", "date")),
    "steam-200k": Delimited(
        Columns("user", "game", FILE_ORDER, event="behavior"),
        names=("user", "game", "behavior", "hours", "unused"),
    ),
    "mind": Delimited(
        Columns("user", "impressions", "time", time_pattern="%m/%d/%Y %I:%M:%S %p"),
        "\t",
        ("impression", "user", "time", "history", "impressions"),
        impressions=True,
    ),
    "lastfm-1k": Delimited(
        Columns("userid", "artname", "timestamp"),
        "\t",
        ("userid", "timestamp", "artid", "artname", "traid", "traname"),
    ),
    "tenrec": Delimited(Columns("user_id", "item_id", FILE_ORDER, clicked="click")),
}
