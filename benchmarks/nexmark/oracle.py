"""What each query must answer, computed by DuckDB over the whole list of events at once; nothing here knows our engine.

Every query is one SELECT over the tables person, auction and bid; `seq` is the order of arrival. Means are taken by the caller's
rule: exact sum over count.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from benchmarks.nexmark.events import Auction, Bid, Event, Person, row

__all__ = ["ORACLES", "Oracle"]

Row = tuple[Any, ...]

DAY = "strftime(make_timestamp(date_time * 1000), '%Y-%m-%d')"
MINUTE = "strftime(make_timestamp(date_time * 1000), '%H:%M')"
BANDS = ("TRUE", "price < 10000", "price >= 10000 AND price < 1000000", "price >= 1000000")


def by_band(what: str) -> str:
    """The same count four times: of all, and of each price band."""
    return ", ".join(f"count({what}) FILTER (WHERE {band})" for band in BANDS)


WINNING = """
    SELECT a.id, a.category, a.seller, a.expires, b.bidder, b.price, b.date_time, a.item_name, a.date_time AS opened,
           row_number() OVER (PARTITION BY a.id ORDER BY b.price DESC, b.date_time, b.seq) AS place
    FROM auction a JOIN bid b ON a.id = b.auction AND b.date_time BETWEEN a.date_time AND a.expires
"""

ORACLES: dict[str, str] = {
    "q0": "SELECT auction, bidder, price, channel, url, date_time, extra FROM bid",
    "q1": "SELECT auction, bidder, 0.908::DOUBLE * price, date_time, extra FROM bid",
    "q2": "SELECT auction, price FROM bid WHERE auction % 123 = 0",
    "q3": """SELECT p.name, p.city, p.state, a.id FROM auction a JOIN person p ON a.seller = p.id
             WHERE a.category = 10 AND p.state IN ('OR', 'ID', 'CA')""",
    "q4": f"SELECT category, sum(price)::DOUBLE / count(*) FROM ({WINNING}) WHERE place = 1 GROUP BY category",
    "q5": """WITH hops AS (SELECT auction, unnest(range(
                      (date_time // 2000) * 2000 - 8000, (date_time // 2000) * 2000 + 1, 2000)) AS start FROM bid),
                  counts AS (SELECT start, auction, count(*) AS n FROM hops GROUP BY start, auction)
             SELECT start, auction, n FROM counts QUALIFY n = max(n) OVER (PARTITION BY start)""",
    "q6": f"""WITH closed AS (SELECT * FROM ({WINNING}) WHERE place = 1)
              SELECT seller, id, sum(price) OVER last::DOUBLE / count(*) OVER last FROM closed
              WINDOW last AS (PARTITION BY seller ORDER BY expires, id ROWS BETWEEN 9 PRECEDING AND CURRENT ROW)""",
    "q7": """SELECT auction, price, bidder, date_time, extra FROM bid
             QUALIFY price = max(price) OVER (PARTITION BY date_time // 10000)""",
    "q8": """SELECT DISTINCT p.id, p.name, (p.date_time // 10000) * 10000 FROM person p JOIN auction a
             ON a.seller = p.id AND a.date_time // 10000 = p.date_time // 10000""",
    "q9": f"SELECT id, item_name, seller, bidder, price, date_time FROM ({WINNING}) WHERE place = 1",
    "q10": f"SELECT auction, bidder, price, date_time, extra, {DAY}, {MINUTE} FROM bid",
    "q11": """WITH marked AS (SELECT bidder, date_time, date_time - lag(date_time) OVER line >= 10000 AS fresh FROM bid
                              WINDOW line AS (PARTITION BY bidder ORDER BY date_time)),
                   numbered AS (SELECT bidder, date_time, count(*) FILTER (WHERE fresh) OVER (
                                PARTITION BY bidder ORDER BY date_time RANGE UNBOUNDED PRECEDING) AS session FROM marked)
              SELECT bidder, count(*), min(date_time), max(date_time) + 10000 FROM numbered GROUP BY bidder, session""",
    # Processing time is the check's own: `time_of_seq(seq)` is put in its place.
    "q12": "SELECT bidder, count(*), (time_of_seq(seq) // 10000) * 10000 FROM bid GROUP BY bidder, time_of_seq(seq) // 10000",
    "q13": "SELECT b.auction, b.bidder, b.price, b.date_time, s.value FROM bid b JOIN side s ON b.auction % 10000 = s.key",
    "q14": """SELECT auction, bidder, 0.908::DOUBLE * price, CASE WHEN hour BETWEEN 8 AND 18 THEN 'dayTime'
                     WHEN hour <= 6 OR hour >= 20 THEN 'nightTime' ELSE 'otherTime' END,
                     date_time, extra, length(extra) - length(replace(extra, 'c', ''))
              FROM (SELECT *, hour(make_timestamp(date_time * 1000)) AS hour FROM bid)
              WHERE 0.908::DOUBLE * price > 1000000 AND 0.908::DOUBLE * price < 50000000""",
    "q15": f"SELECT {DAY}, {by_band('*')}, {by_band('DISTINCT bidder')}, {by_band('DISTINCT auction')} FROM bid GROUP BY 1",
    "q16": f"""SELECT channel, {DAY}, max({MINUTE}), {by_band("*")}, {by_band("DISTINCT bidder")}, {by_band("DISTINCT auction")}
               FROM bid GROUP BY 1, 2""",
    "q17": f"""SELECT auction, {DAY}, {by_band("*")}, min(price), max(price), sum(price)::DOUBLE / count(*), sum(price)::BIGINT
               FROM bid GROUP BY 1, 2""",
    "q18": """SELECT auction, bidder, price, channel, url, date_time, extra FROM bid
              QUALIFY row_number() OVER (PARTITION BY bidder, auction ORDER BY date_time DESC, seq DESC) = 1""",
    "q19": """SELECT auction, place, bidder, price, date_time FROM (
                SELECT *, row_number() OVER (PARTITION BY auction ORDER BY price DESC, seq) AS place FROM bid) WHERE place <= 10""",
    "q20": """SELECT b.auction, b.bidder, b.price, b.channel, b.url, b.date_time, b.extra, a.item_name, a.description, a.initial_bid,
                     a.reserve, a.date_time, a.expires, a.seller, a.category, a.extra
              FROM bid b JOIN auction a ON b.auction = a.id WHERE a.category = 10""",
    "q21": """SELECT * FROM (SELECT auction, bidder, price, channel, CASE lower(channel)
                  WHEN 'apple' THEN '0' WHEN 'google' THEN '1' WHEN 'facebook' THEN '2' WHEN 'baidu' THEN '3'
                  ELSE nullif(regexp_extract(url, '(&|^)channel_id=([^&]*)', 2), '') END AS channel_id FROM bid)
              WHERE channel_id IS NOT NULL""",
    "q22": "SELECT auction, bidder, price, channel, split_part(url, '/', 4), split_part(url, '/', 5), split_part(url, '/', 6) FROM bid",
}
"""One SELECT a query."""

TABLES: dict[type[Any], str] = {Person: "person", Auction: "auction", Bid: "bid"}


class Oracle:
    """The events in an in-memory DuckDB database.

    Args:
        side: the rows of q13's side table.
    """

    def __init__(self, events: Sequence[Event], side: Sequence[tuple[int, str]] = ()) -> None:
        import duckdb

        self.database: Any = duckdb.connect()
        for kind, name in TABLES.items():
            rows = [(seq, *row(event)) for seq, event in enumerate(events) if event.__class__ is kind]
            annotations: dict[str, str] = kind.__annotations__
            columns = {"seq": "BIGINT"} | {name: "BIGINT" if of == "int" else "VARCHAR" for name, of in annotations.items()}
            self.fill(name, columns, rows)
        self.fill("side", {"key": "BIGINT", "value": "VARCHAR"}, list(side))

    def fill(self, name: str, columns: dict[str, str], rows: list[Row]) -> None:
        """A table with these rows."""
        values = ", ".join(f"unnest(?::{of}[]) AS {column}" for column, of in columns.items())
        given = [list(column) for column in zip(*rows, strict=True)] or [[] for _ in columns]
        self.database.execute(f"CREATE TABLE {name} AS SELECT {values}", given)

    def answer(self, query: str, time_of_seq: str = "") -> list[Row]:
        """The rows of a query, in no particular order.

        Args:
            time_of_seq: for q12: the processing time of an event as an SQL expression over its place in the input, `seq`.
        """
        if time_of_seq:
            self.database.execute(f"CREATE OR REPLACE MACRO time_of_seq(seq) AS {time_of_seq}")
        rows: list[Row] = self.database.execute(ORACLES[query]).fetchall()
        return rows
