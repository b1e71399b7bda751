"""The same bars as each vendor would write them, for tests."""

import datetime
from types import SimpleNamespace

import databento_dbn as dbn
import numpy as np
import pandas as pd
import pyarrow as pa

from moola_lib.market.bars import COLUMNS
from moola_lib.market.databento import PRICES, RECORD, UNDEFINED_PRICE

ZONE = "America/New_York"


def facts(bars):
    return bars.report.set_index("fact")["value"]


def csv_of(columns, **options):
    return pd.DataFrame(columns).to_csv(index=False, **options)


def naive(frame, zone):
    return frame.index.tz_convert(zone).tz_localize(None)


def yahoo(frame):
    local = [stamp.isoformat(sep=" ") for stamp in frame.index.tz_convert(ZONE)]
    prices = {name.capitalize(): frame[name].to_numpy() for name in PRICES}
    extras = {"Adj Close": frame["close"].to_numpy(), "Volume": frame["volume"].astype(int).to_numpy()}
    return csv_of({"Datetime": local, **prices, **extras, "Dividends": 0.0, "Stock Splits": 0.0, "Capital Gains": 0.0})


def yfinance_of_today(frame):
    names = ["Close", "High", "Low", "Open", "Volume"]
    rows = frame[[name.lower() for name in names]].set_axis(frame.index.tz_convert(ZONE)).to_csv(header=False)
    return f"Price,{','.join(names)}\nTicker,{','.join(['NQ=F'] * 5)}\nDatetime,,,,,\n{rows}"


def firstrate(frame):
    stamps = naive(frame, ZONE).strftime("%Y-%m-%d %H:%M:%S")
    return csv_of({"timestamp": stamps, **{name: frame[name].to_numpy() for name in COLUMNS}})


def firstrate_without_header(frame):
    return firstrate(frame).partition("\n")[2]


def tvdatafeed(frame):
    junk = {"year_month": ["", "2024-03"] * (len(frame) // 2), "month": 3}
    columns = {"datetime": naive(frame, ZONE), "symbol": "CME_MINI:NQ1!"}
    return csv_of({**columns, **{name: frame[name].to_numpy() for name in COLUMNS}, **junk})


def semicolons(frame):
    stamps = naive(frame, ZONE).strftime("%Y%m%d %H%M%S")
    columns = {"ts": stamps, **{name: frame[name].to_numpy() for name in COLUMNS}}
    return csv_of(columns, sep=";", header=False, lineterminator="\r\n").removesuffix("\r\n")


def databento_columns(frame):
    return {"rtype": 33, "publisher_id": 1, "instrument_id": 5482}


def databento_pretty(frame):
    stamps = [f"{stamp:%Y-%m-%dT%H:%M:%S}.000000000Z" for stamp in frame.index]
    numbers = {name: [f"{price:.9f}" for price in frame[name]] for name in PRICES}
    volume = frame["volume"].astype(int).to_numpy()
    return csv_of({"ts_event": stamps, **databento_columns(frame), **numbers, "volume": volume, "symbol": "NQH4"})


def databento_raw(frame):
    numbers = {name: (frame[name] * 1e9).astype(np.int64).to_numpy() for name in PRICES}
    volume = frame["volume"].astype(int).to_numpy()
    stamps = frame.index.as_unit("ns").asi8
    return csv_of({"ts_event": stamps, **databento_columns(frame), **numbers, "volume": volume})


def epoch_milliseconds(frame):
    return csv_of({"time": frame.index.as_unit("ms").asi8, **{name: frame[name].to_numpy() for name in COLUMNS}})


def zstandard(content):
    return pa.Codec("zstd").compress(content, asbytes=True)


LAYOUTS = {
    "Yahoo": (yahoo, {"symbol": "NQ=F"}, "NQ=F"),
    "yfinance, three header lines": (yfinance_of_today, {}, "NQ=F"),
    "FirstRate": (firstrate, {"symbol": "NQ", "tz": ZONE}, "NQ"),
    "FirstRate, no header": (firstrate_without_header, {"symbol": "NQ", "tz": ZONE}, "NQ"),
    "tvDatafeed": (tvdatafeed, {"tz": ZONE}, "CME_MINI:NQ1!"),
    "semicolons": (semicolons, {"symbol": "NQ", "tz": ZONE, "stamp": "start"}, "NQ"),
    "Databento pretty": (databento_pretty, {}, "NQH4"),
    "Databento raw": (databento_raw, {"symbol": "NQH4"}, "NQH4"),
    "epoch in milliseconds": (epoch_milliseconds, {"symbol": "NQ"}, "NQ"),
}


def dbn_bytes(frame, *, schema="ohlcv-1m", ids=5482, mappings=None, rtype=33):
    records = np.zeros(len(frame), RECORD)
    records["length"], records["rtype"], records["instrument_id"] = 14, rtype, ids
    records["ts_event"] = frame.index.as_unit("ns").asi8
    for name in PRICES:
        fixed = (frame[name].fillna(0) * 1e9).astype(np.int64)
        records[name] = fixed.mask(frame[name].isna(), UNDEFINED_PRICE)
    records["volume"] = frame["volume"]
    day, after = datetime.date(2024, 3, 1), datetime.date(2024, 4, 1)
    mappings = {"NQH4": [(day, after, "5482")]} if mappings is None else mappings
    metadata = dbn.Metadata(
        dataset="GLBX.MDP3", start=int(records["ts_event"][0]), stype_in=dbn.SType.RAW_SYMBOL,
        stype_out=dbn.SType.INSTRUMENT_ID, schema=dbn.Schema.from_str(schema), symbols=list(mappings),
        mappings=[
            SimpleNamespace(
                raw_symbol=name,
                intervals=[SimpleNamespace(start_date=a, end_date=b, symbol=number) for a, b, number in intervals],
            )
            for name, intervals in mappings.items()
        ],
    )  # fmt: skip
    return bytes(metadata) + records.tobytes()
