"""The log formats by name; a new format is one entry here."""

from collections.abc import Mapping

from training.data.columns import Columns, Format
from training.data.delimited import Delimited
from training.data.json_lines import JsonLines
from training.data.parquet import Parquet

_NATIVE = Columns("user_id", "item_id", "timestamp", "event", "weight")
_RATINGS = Columns("user", "item", "timestamp", weight="rating")
_RATING_NAMES = ("user", "item", "rating", "timestamp")

FORMATS: Mapping[str, Format] = {
    "csv": Delimited(_NATIVE),
    "parquet": Parquet(_NATIVE),
    "movielens-csv": Delimited(Columns("userId", "movieId", "timestamp", weight="rating")),
    # user::item::rating::timestamp, read as fields between single colons, every second one empty
    "movielens-dat": Delimited(_RATINGS, ":", ("user", "", "item", "", "rating", "", "timestamp")),
    "movielens-100k": Delimited(_RATINGS, "\t", _RATING_NAMES),
    "amazon-json": JsonLines(Columns("reviewerID", "asin", "unixReviewTime", weight="overall")),
    "amazon-csv-2014": Delimited(_RATINGS, names=_RATING_NAMES),
    "amazon-csv-2018": Delimited(_RATINGS, names=("item", "user", "rating", "timestamp")),
    "gowalla": Delimited(
        Columns("user", "location", "time"), "\t", ("user", "time", "lat", "lon", "location")
    ),
    "recbole": Delimited(Columns("user_id", "item_id", "timestamp", weight="rating"), "\t"),
}
