"""Public logs by name: a file of the published form of each, detected and named."""

import gzip
from collections.abc import Callable
from pathlib import Path

import pytest

from training.data.errors import LogError
from training.data.format_detection import detect_format
from training.data.formats import FORMATS
from training.data.interactions import Interactions
from training.data.log_options import LogSource
from training.data.readers import read_log

Row = tuple[str, str, float]
Write = Callable[..., Path]

pytestmark = pytest.mark.usefixtures("both_engines")
RowsOf = Callable[[Interactions], list[Row]]

MIND_HISTORY = "N55189 N42782"

# Each: file name, format, content, its rows. From the published descriptions and first lines.
FILES: dict[str, tuple[str, str, str, list[Row]]] = {
    "tab-separated": (
        "log.tsv",
        "tsv",
        'event\tuser_id\titem_id\ttimestamp\nview\tann\t7" nail\t2\n',
        [("ann", '7" nail', 2)],
    ),
    "JSON lines": (
        "log.jsonl",
        "json",
        '{"user_id": 7, "item_id": "tea", "timestamp": "2020-10-11 04:45:36 UTC"}\n',
        [("7", "tea", 1602391536)],
    ),
    "Amazon reviews 2023": (
        "All_Beauty.jsonl",
        "amazon-json-2023",
        '{"rating": 5.0, "title": "Such a lovely scent", "text": "This spray, {really}", "images":'
        ' [], "asin": "B00YQ6X8EO", "parent_asin": "B00YQ6X8EX", "user_id":'
        ' "AGKHLEW2SOWHNMFQIJGBECAF7INQ", "timestamp": 1588687728923, "helpful_vote": 0,'
        ' "verified_purchase": true}\n',
        [("AGKHLEW2SOWHNMFQIJGBECAF7INQ", "B00YQ6X8EX", 1588687728.923)],
    ),
    "Amazon ratings 2023": (
        "All_Beauty.csv",
        "amazon-csv-2023",
        "user_id,parent_asin,rating,timestamp\n"
        "AFKZENTNBQ7A7V7UXW5JJI6UGRYQ,B081TJ8YS3,4.0,1588615855070\n",
        [("AFKZENTNBQ7A7V7UXW5JJI6UGRYQ", "B081TJ8YS3", 1588615855.07)],
    ),
    "Amazon 2023, split with history": (
        "All_Beauty.train.csv",
        "amazon-csv-2023",
        "user_id,parent_asin,rating,timestamp,history\nAFKZ,B081TJ8YS3,4.0,1588615855070,B1 B2\n",
        [("AFKZ", "B081TJ8YS3", 1588615855.07)],
    ),
    "RetailRocket": (
        "events.csv",
        "retailrocket",
        "timestamp,visitorid,event,itemid,transactionid\n"
        "1433221332117,257597,view,355908,\n1433224214164,992329,transaction,248676,4000\n",
        [("257597", "355908", 1433221332.117), ("992329", "248676", 1433224214.164)],
    ),
    "REES46": (
        "2019-Oct.csv",
        "rees46",
        "event_time,event_type,product_id,category_id,category_code,brand,price,user_id,"
        "user_session\n2019-10-01 00:00:00 UTC,view,44600062,2103807459595387724,,shiseido,35.79,"
        "541312140,72d76fde-8bb3-4e00-8c23-a032dfed738c\n2019-10-01 00:00:01 UTC,cart,3900821,"
        "2053013552326770905,appliances.environment.water_heater,aqua,33.20,554748717,9333dfbd\n",
        [("541312140", "44600062", 1569888000), ("554748717", "3900821", 1569888001)],
    ),
    "Yoochoose clicks": (
        "yoochoose-clicks.dat",
        "yoochoose",
        "1,2014-04-07T10:51:09.277Z,214536502,0\n1,2014-04-07T10:54:09.868Z,214536500,S\n",
        [("1", "214536502", 1396867869.277), ("1", "214536500", 1396868049.868)],
    ),
    "Yoochoose buys": (
        "yoochoose-buys.dat",
        "yoochoose-buys",
        "420374,2014-04-06T18:44:58.314Z,214537888,12462,1\n",
        [("420374", "214537888", 1396809898.314)],
    ),
    "Diginetica": (
        "train-item-views.csv",
        "diginetica",
        "sessionId;userId;itemId;timeframe;eventdate\n"
        "1;NA;81766;526309;2016-05-09\n1;NA;31331;1031018;2016-05-09\n",
        [("1", "81766", 1462752526.309), ("1", "31331", 1462753031.018)],
    ),
    "Diginetica with other names": (
        "train-item-views.csv",
        "diginetica",
        "session_id;user_id;item_id;timeframe;eventdate\n1;;81766;526309;2016-05-09\n",
        [("1", "81766", 1462752526.309)],
    ),
    "Otto": (
        "otto-recsys-train.jsonl",
        "otto",
        '{"session":12,"events":[{"aid":1517085,"ts":1659304800025,"type":"clicks"},'
        '{"aid":1563459,"ts":1659304904511,"type":"carts"}]}\n{"session":13,"events":[]}\n'
        '{"session":14,"events":[{"aid":7,"ts":1659304800000,"type":"orders"}]}\n',
        [
            ("12", "1517085", 1659304800.025),
            ("12", "1563459", 1659304904.511),
            ("14", "7", 1659304800),
        ],
    ),
    "Taobao": (
        "UserBehavior.csv",
        "taobao",
        "1,2268318,2520377,pv,1511544070\n1,2333346,2520771,buy,1511561733\n",
        [("1", "2268318", 1511544070), ("1", "2333346", 1511561733)],
    ),
    "Steam reviews": (
        "steam_reviews.json",
        "steam",
        "{u'username': u'Chaos Syren', u'hours': 0.1, u'products': 41, u'product_id': u'725280',"
        " u'page_order': 0, u'date': u'2017-12-17', u'text': u'It\\'s \"fun\"', u'early_access':"
        " False, u'page': 1}\n",
        [("Chaos Syren", "725280", 1513468800)],
    ),
    "Steam reviews as JSON": (
        "steam_new.json",
        "steam",
        '{"username": "Ann", "product_id": "725280", "date": "2017-12-17", "hours": 1}\n',
        [("Ann", "725280", 1513468800)],
    ),
    "Steam 200k": (
        "steam-200k.csv",
        "steam-200k",
        '151603712,"The Elder Scrolls V Skyrim",purchase,1.0,0\n'
        '151603712,"The Elder Scrolls V Skyrim",play,273.0,0\n5250,Dota 2,purchase,1.0,0\n',
        [
            ("151603712", "The Elder Scrolls V Skyrim", 0),
            ("151603712", "The Elder Scrolls V Skyrim", 1),
            ("5250", "Dota 2", 2),
        ],
    ),
    "MIND": (
        "behaviors.tsv",
        "mind",
        f"1\tU13740\t11/11/2019 9:05:58 AM\t{MIND_HISTORY}\tN55689-1 N35729-0 N3-1\n"
        "2\tU91836\t11/12/2019 6:11:30 PM\t\tN20678-0 N39317-0 N58114-1\n"
        "3\tU73700\t11/14/2019 7:01:48 AM\tN10732\tN50014-0\n",
        [
            ("U13740", "N3", 1573463158),
            ("U13740", "N55689", 1573463158),
            ("U91836", "N58114", 1573582290),
        ],
    ),
    "Last.fm 1K": (
        "userid-timestamp-artid-artname-traid-traname.tsv",
        "lastfm-1k",
        "user_000001\t2009-05-04T23:08:57Z\tf1b1cf71-bd35-4e99-8624-24a6e15f133a\tDeep Dish\t\t"
        'Fuck Me Im Famous (Pacha Ibiza)-09-28-2007\nuser_000001\t2009-05-04T13:54:10Z\t\t"Weird'
        " Al\t\tComposition 0919 (Live_2009_4_15)\n",
        [("user_000001", '"Weird Al', 1241445250), ("user_000001", "Deep Dish", 1241478537)],
    ),
    "Tenrec": (
        "QK-video.csv",
        "tenrec",
        "user_id,item_id,click,follow,like,share,video_category,watching_times,gender,age\n"
        "1,2,1,0,0,0,1,2,1,5\n1,7,0,0,0,0,1,0,1,5\n1,3,1,0,1,0,1,1,1,5\n",
        [("1", "2", 0), ("1", "3", 2)],
    ),
}


@pytest.mark.parametrize("case", FILES)
@pytest.mark.parametrize("compressed", [False, True], ids=["plain", "gzip"])
@pytest.mark.parametrize("named", [False, True], ids=["detected", "named"])
def test_each_format_is_detected_and_read(
    write: Write, case: str, compressed: bool, named: bool, rows_of: RowsOf
) -> None:
    name, format, content, rows = FILES[case]
    data = content.encode()
    path = write(gzip.compress(data), f"{name}.gz") if compressed else write(data, name)
    assert detect_format(path) == format
    log = read_log(path, format if named else "auto")
    found = sorted(rows_of(log), key=lambda row: (row[0], row[2], row[1]))
    assert [row[:2] for row in found] == [row[:2] for row in rows]
    assert log.times.tolist() == pytest.approx([row[2] for row in rows], abs=1e-6)


def test_each_format_has_a_test_file() -> None:
    named_elsewhere = {"csv", "parquet", "amazon-json", "amazon-csv-2014", "amazon-csv-2018"}
    named_elsewhere |= {"movielens-csv", "movielens-dat", "movielens-100k", "gowalla", "recbole"}
    assert {format for _, format, _, _ in FILES.values()} | named_elsewhere == set(FORMATS)


def test_the_event_types_of_public_logs_can_be_kept(write: Write, rows_of: RowsOf) -> None:
    for case, event in {
        "RetailRocket": "transaction",
        "REES46": "cart",
        "Otto": "carts",
        "Taobao": "buy",
        "Steam 200k": "play",
    }.items():
        name, _, content, rows = FILES[case]
        assert [row[1] for row in rows_of(read_log(write(content, name), events=[event]))] == [
            rows[1][1]
        ]


def test_another_column_of_a_known_log_may_be_the_item(write: Write, rows_of: RowsOf) -> None:
    name, _, content, _ = FILES["Last.fm 1K"]
    log = read_log(write(content, name), source=LogSource(columns={"item": "traname"}))
    assert rows_of(log)[0][1] == "Composition 0919 (Live_2009_4_15)"
    name, _, content, _ = FILES["RetailRocket"]
    source = LogSource(columns={"user": "visitorid", "item": "itemid", "time": "timestamp"})
    assert read_log(write(content, name), source=source).times[0] == pytest.approx(1433221332.117)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        # Four numbers or ids, without a header: user first, or item first?
        ("4150000000,SKU-1,1,1602391536\n4150000001,SKU-2,1,1602391537\n", "amazon-csv-2018"),
        ("4150000000,SKU-1,1,1602391536\n", "amazon-csv-2018 .item, user, rating, time"),
        ("B000052YAN,0205616461,5.0,1369699200\n", "amazon-csv-2014 .user, item, rating, time"),
        ("1,2,5,1369699200\n", "name the format with --format"),
        # A rating and a time need not be those of MovieLens, nor the first column the user.
        ("17\t4\t30\t1602391536\n", "name the columns with --column-names"),
        ("SKU-1::ann::5::1602391536\n", "not recognised"),
        ("u1,i1,1602391536\n", "the first line is no header, as '1602391536' is no name"),
        ("1,2268318,2520377,click,1511544070\n", "the first line is no header"),
        ("1,2020-04-07T10:51:09Z,214536502,0\n", "name the format with --format"),
        ("1;2;2020-04-07T10:51:09Z\n", "the first line is no header"),
    ],
)
def test_what_fits_several_formats_or_none_is_refused(
    write: Write, lines: str, message: str
) -> None:
    with pytest.raises(LogError, match=message):
        read_log(write(lines))


def test_a_format_that_is_named_is_not_guessed(write: Write, rows_of: RowsOf) -> None:
    path = write("4150000000,SKU-1,1,1602391536\n")
    assert rows_of(read_log(path, "amazon-csv-2014")) == [("4150000000", "SKU-1", 1602391536)]
    assert rows_of(read_log(path, "amazon-csv-2018")) == [("SKU-1", "4150000000", 1602391536)]
    source = LogSource(column_names=("user", "item", "weight", "time"))
    assert rows_of(read_log(path, source=source)) == [("4150000000", "SKU-1", 1602391536)]
