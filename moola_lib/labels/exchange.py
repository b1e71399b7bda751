"""Label tables to and from other tools: CSV, and the JSON of Label Studio (time series).

A task of Label Studio is a window, a region of it an expansion, an annotation
with the choice "none" a window without one. Regions carry every other column
of the table in their `meta`; where they have it, it goes before what Label
Studio knows of the annotation (who imports a project has "completed" it).
Labels that a rule or a model made are a task's predictions: suggestions, which
an annotator takes or not.
"""

import json
import math

import numpy as np
import pandas as pd

from moola_lib.errors import UserError
from moola_lib.files import plain, read_json, replace_atomically, write_text
from moola_lib.labels.table import CLASSES, OPTIONAL, REQUIRED
from moola_lib.labels.targets import WINDOW_BARS
from moola_lib.market.bars import PRICES

TOOL = "moola"
TIME_FORMAT = "%Y-%m-%dT%H:%M:%SZ"
LABEL_STUDIO_CONFIG = f"""\
<View>
  <TimeSeriesLabels name="label" toName="ts">
    <Label value="consolidation"/>
    <Label value="retracement"/>
  </TimeSeriesLabels>
  <Choices name="none" toName="ts"><Choice value="none"/></Choices>
  <TimeSeries name="ts" value="$ts" valueType="json" timeColumn="time" timeFormat="{TIME_FORMAT}">
    <Channel column="close"/><Channel column="high"/><Channel column="low"/>
  </TimeSeries>
</View>
"""
FIRST_EPOCH_SECONDS, FIRST_EPOCH_MILLISECONDS = 1e8, 1e11  # smaller numbers are bars, seconds


def write_csv(table, path):
    """Write a checked label table as CSV, atomically; `read_csv` gives the same table."""
    with replace_atomically(path) as temporary:
        table.to_csv(temporary, index=False)


def read_csv(path):
    """Read the columns of a label table from CSV, unchecked; empty cells are missing.

    Raises
    ------
    UserError
        The file is no CSV.
    """
    try:
        frame = pd.read_csv(path, dtype="str", keep_default_na=False, na_values=[""], encoding="utf-8-sig")
    except (ValueError, OSError) as error:  # pandas' parser errors and bad UTF-8 are ValueErrors
        raise UserError(f"{path} cannot be read as CSV: {error}") from error
    if "seconds" in frame:
        frame["seconds"] = frame["seconds"].map(_exact_float, na_action="ignore")
    return frame


def write_label_studio(table, path, frame=None):
    """Write a checked label table as Label Studio's JSON, atomically.

    Parameters
    ----------
    table : DataFrame
        Checked label table. Each window id is a task.
    path : str or Path
    frame : DataFrame, optional
        Bars indexed by UTC `ts`. With them every task holds its window's prices,
        so that Label Studio can show it (see LABEL_STUDIO_CONFIG), and edges are
        written as times; without, edges are bars.

    Raises
    ------
    UserError
        A window's first bar is not in the bars, or they end inside the window.
    """
    tasks = [_task(window_id, rows, frame) for window_id, rows in table.groupby("window_id", sort=False)]
    lines = [json.dumps(plain(task), allow_nan=False) for task in tasks]
    write_text(path, "[\n" + ",\n".join(lines) + "\n]\n")


def read_label_studio(path, frame=None, *, symbol=None):
    """Read the columns of a label table from Label Studio's JSON export, unchecked.

    Parameters
    ----------
    path : str or Path
        A list of tasks. A task's `data` may hold `window_id`, `symbol`,
        `window_start` and `ts` (columns of values; `time` among them). Its
        annotations are read, its predictions where nobody annotated it; those
        that were cancelled, and tasks with neither, are left out. A second
        annotation of a task is a window of its own, `ID~2`.
    frame : DataFrame, optional
        Bars indexed by UTC `ts`: for times where a task holds none.
    symbol : str, optional
        For tasks that name none.

    Returns
    -------
    DataFrame
        Edges are the nearest bars. Numbers below 1e8 are bars, from 1e11 on
        milliseconds since 1970, others seconds; texts are times.

    Raises
    ------
    UserError
        Names the file, the task and the value.

    Notes
    -----
    https://labelstud.io/guide/task_format and templates/time_series.
    """
    tasks = read_json(path)
    if not isinstance(tasks, list) or not all(isinstance(task, dict) and "data" in task for task in tasks):
        raise UserError(
            f"{path} is no list of tasks with `data`; export the project from Label Studio as JSON (not JSON_MIN)"
        )
    rows = []
    for number, task in enumerate(tasks, 1):
        where = f"{path}: task {task.get('id', number)}"
        rows += _Task(task["data"], where, frame, symbol).rows(task)
    return pd.DataFrame(rows, columns=[*REQUIRED, *OPTIONAL])


class _Task:
    """One task: its window, and how its edges become bars."""

    def __init__(self, data, where, frame, symbol):
        if not isinstance(data, dict):
            raise UserError(f"{where}: `data` = {data!r} is no object; export the project from Label Studio as JSON")
        self.where = where
        self.stamps = _read_stamps(data, where)
        start = data.get("window_start")
        if start is None and self.stamps is None:
            raise UserError(f"{where}: `data` holds neither window_start nor times (ts.time); add one of them")
        self.start = self.stamps[0] if start is None else _read_time(start, where)
        if self.stamps is None and frame is not None:
            place = frame.index.searchsorted(self.start)
            self.stamps = frame.index[place : place + WINDOW_BARS]
        self.symbol = data.get("symbol", symbol)
        if self.symbol is None:
            raise UserError(f"{where}: `data` names no symbol; add it, or give it with --symbol")
        self.window_id = str(data.get("window_id", f"{self.symbol}-{self.start:%Y%m%d-%H%M}"))

    def rows(self, task):
        """Return the task's rows of a label table, as dicts."""
        given = task.get("annotations") or []
        kept = [each for each in given if not each.get("was_cancelled")] or (task.get("predictions") or [])[:1]
        rows = []
        for number, annotation in enumerate(kept, 1):
            window_id = self.window_id if number == 1 else f"{self.window_id}~{number}"
            rows += [{**row, "window_id": window_id} for row in self._read_annotation(annotation)]
        return rows

    def _read_annotation(self, annotation):
        window = {"symbol": self.symbol, "window_start": self.start, "label": "none"}
        if "model_version" in annotation:
            origin = {"annotator": annotation["model_version"], "source": "proposal:label-studio"}
        else:
            by = annotation.get("completed_by")
            origin = {"annotator": None if by is None else f"label-studio:{by}", "source": "label-studio"}
            origin |= {"labelled_at": annotation.get("created_at"), "seconds": annotation.get("lead_time")}
        rows = []
        for region in annotation.get("result") or []:
            value, meta = region.get("value") or {}, region.get("meta") or {}
            kept = {name: cell for name, cell in meta.items() if name in OPTIONAL}
            columns = kept if meta.get("tool") == TOOL else origin
            if region.get("type") == "timeserieslabels":
                rows.append(window | self._read_span(value) | columns)
            elif value.get("choices") == ["none"]:
                rows.append(window | columns)
        return rows or [window | origin]  # somebody looked, and marked nothing

    def _read_span(self, value):
        names = value.get("timeserieslabels") or []
        if len(names) != 1 or str(names[0]).lower() not in CLASSES:
            raise UserError(f"{self.where}: label {names!r} is not one of {', '.join(CLASSES)}; give the region one")
        start, end = (self._read_edge(value, name) for name in ("start", "end"))
        if not 0 <= start <= end < WINDOW_BARS:
            raise UserError(
                f"{self.where}: the region from bar {start} to {end} is not within 0..{WINDOW_BARS - 1}; mark it again"
            )
        return {"expansion_start": start, "expansion_end": end, "label": str(names[0]).lower()}

    def _read_edge(self, value, name):
        """Return the bar nearest to an edge, which is a bar or a time."""
        edge = value.get(name)
        is_number = isinstance(edge, (int, float)) and not isinstance(edge, bool) and math.isfinite(edge)
        if is_number and abs(edge) < FIRST_EPOCH_SECONDS:
            return math.floor(edge + 0.5)
        if not is_number and not isinstance(edge, str):
            raise UserError(f"{self.where}: {name} = {edge!r} is neither a bar nor a time; mark the region again")
        if self.stamps is None:
            raise UserError(
                f"{self.where}: {name} = {edge!r} is a time, and the task holds no times (ts.time); "
                "give the bars with --bars"
            )
        stamp = _read_time(edge, self.where)
        distance = np.abs(self.stamps - stamp)
        if len(distance) == 0 or distance.min() > pd.Timedelta(minutes=1):
            raise UserError(f"{self.where}: {name} = {edge!r} lies outside the window that begins at {self.start}")
        return int(distance.argmin())


def _task(window_id, rows, frame):
    """Return one window as a task."""
    first = rows.iloc[0]
    data = {"window_id": window_id, "symbol": first["symbol"], "window_start": first["window_start"]}
    stamps = None
    if frame is not None:
        bars = _window_bars(window_id, first["window_start"], frame)
        stamps = bars.index.strftime(TIME_FORMAT)
        data["ts"] = {"time": list(stamps)} | {name: bars[name].to_numpy() for name in PRICES}
    result = [_region(f"{window_id}:{k}", row, stamps) for k, row in enumerate(rows.to_dict("records"))]
    if str(first["source"]).startswith("proposal"):
        return {"data": data, "predictions": [{"model_version": _known(first["annotator"]), "result": result}]}
    known = {"created_at": _known(first["labelled_at"]), "lead_time": _known(first["seconds"])}
    known = {name: cell for name, cell in known.items() if cell is not None}
    return {"data": data, "annotations": [known | {"result": result}]}


def _region(name, row, stamps):
    """Return one row as a region, or as the choice that there is none; every other column in `meta`."""
    meta = {"tool": TOOL} | {column: row[column] for column in OPTIONAL if _known(row[column]) is not None}
    region = {"id": name, "to_name": "ts", "meta": meta}
    if row["label"] == "none":
        return region | {"from_name": "none", "type": "choices", "value": {"choices": ["none"]}}
    edges = {name: int(row[f"expansion_{name}"]) for name in ("start", "end")}
    if stamps is not None:
        edges = {name: stamps[bar] for name, bar in edges.items()}
    value = {**edges, "instant": False, "timeserieslabels": [row["label"]]}
    return region | {"from_name": "label", "type": "timeserieslabels", "value": value}


def _window_bars(window_id, start, frame):
    """Return a window's bars.

    Raises
    ------
    UserError
        They are not all there.
    """
    place = int(frame.index.searchsorted(start))
    bars = frame.iloc[place : place + WINDOW_BARS]
    if len(bars) < WINDOW_BARS or bars.index[0] != start:
        raise UserError(f"window {window_id} (from {start}) does not lie in the bars; give the bars it was labelled on")
    return bars


def _read_stamps(data, where):
    """Return the times of a task's bars, or None."""
    ts = data.get("ts")
    times = ts.get("time") if isinstance(ts, dict) else None
    if not times:
        return None
    return pd.DatetimeIndex([_read_time(each, where) for each in times])


def _read_time(value, where):
    """Return a time as a UTC Timestamp; texts without a zone are refused."""
    try:
        if isinstance(value, (int, float)):
            return pd.Timestamp(value, unit="ms" if value >= FIRST_EPOCH_MILLISECONDS else "s", tz="UTC")
        stamp = pd.Timestamp(value)
    except (ValueError, TypeError, OverflowError) as error:
        raise UserError(f"{where}: {value!r} is not a time") from error
    if stamp.tzinfo is None:
        raise UserError(f"{where}: the time {value!r} carries no zone; write it as 2024-03-05T15:00:00Z")
    return stamp.tz_convert("UTC")


def _known(value):
    """Return a cell, None where it is missing."""
    return None if pd.isna(value) else value


def _exact_float(text):
    """Return the number a text says, to the last bit; the text where it says none."""
    try:
        return float(text)
    except ValueError:
        return text
