"""Label tables to and from the JSON of Label Studio (time series).

A task of Label Studio is a window, a region of it an expansion, an annotation
with the choice "none" a window without one. Regions carry every other column
of the table in their `meta`; where they have it, it goes before what Label
Studio knows of the annotation (who imports a project has "completed" it).
Labels that a rule or a model made are a task's predictions: suggestions, which
an annotator takes or not.
"""

import json
import math
from typing import Any

import numpy as np
import pandas as pd
from pydantic import BaseModel, StrictFloat, StrictInt, StrictStr, TypeAdapter, ValidationError

from moola_lib.errors import UserError
from moola_lib.files import plain, read_json, write_text
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
PREDICTION = "proposal:label-studio"
FIRST_EPOCH_SECONDS, FIRST_EPOCH_MILLISECONDS = 1e8, 1e11  # smaller numbers are bars, seconds

_Edge = StrictInt | StrictFloat | StrictStr  # a bar or a time


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
    try:
        tasks = _TASKS.validate_python(read_json(path))
    except ValidationError as error:
        raise UserError(_say_unexpected(path, error)) from error
    windows = [
        _Window(task, f"{path}: task {task.id or number}", frame, symbol) for number, task in enumerate(tasks, 1)
    ]
    rows = [row for window in windows for row in window.rows()]
    return pd.DataFrame(rows, columns=[*REQUIRED, *OPTIONAL])


class _Value(BaseModel):
    """What a region marks: of a time series, or the choice that there is nothing."""

    start: _Edge | None = None
    end: _Edge | None = None
    timeserieslabels: list[StrictStr] = []
    choices: list[StrictStr] = []


class _Region(BaseModel):
    type: str = ""
    value: _Value = _Value()
    meta: dict[str, Any] | None = None


class _Annotation(BaseModel):
    result: list[_Region] = []
    was_cancelled: bool | None = None
    completed_by: int | str | dict[str, Any] | None = None
    created_at: str | None = None
    lead_time: float | None = None
    model_version: str | None = None


class _Series(BaseModel):
    time: list[_Edge] = []


class _Data(BaseModel):
    window_id: int | str | None = None
    symbol: str | None = None
    window_start: _Edge | None = None
    ts: _Series | str | None = None  # a text is the address of a file


class _Task(BaseModel):
    """A task, with the fields of it that are read; Label Studio writes more."""

    id: int | str | None = None
    data: _Data
    annotations: list[_Annotation] | None = None
    predictions: list[_Annotation] | None = None


_TASKS = TypeAdapter(list[_Task])


def _say_unexpected(path, error):
    """Say in one sentence what a file holds that Label Studio would not write."""
    first = error.errors(include_url=False)[0]
    at = [str(part) for part in first["loc"] if not str(part).startswith("_")]
    if len(at) < 2 or at[1] == "data":
        return f"{path} is no list of tasks with `data`; export the project from Label Studio as JSON (not JSON_MIN)"
    place = ".".join(each for each in at[1:] if each not in ("int", "float", "str"))
    found = repr(first["input"])
    found = found if len(found) <= 60 else f"{found[:60]}…"
    return f"{path}: task {int(at[0]) + 1} in the list: {place} = {found} cannot be read; mark it again in Label Studio"


class _Window:
    """The window of a task, and how its edges become bars."""

    def __init__(self, task, where, frame, symbol):
        data = task.data
        self.task, self.where = task, where
        times = data.ts.time if isinstance(data.ts, _Series) else []
        self.stamps = pd.DatetimeIndex([_read_time(each, where) for each in times]) if times else None
        if data.window_start is None and self.stamps is None:
            raise UserError(f"{where}: `data` holds neither window_start nor times (ts.time); add one of them")
        self.start = self.stamps[0] if data.window_start is None else _read_time(data.window_start, where)
        if self.stamps is None and frame is not None:
            place = frame.index.searchsorted(self.start)
            self.stamps = frame.index[place : place + WINDOW_BARS]
        self.symbol = data.symbol or symbol
        if self.symbol is None:
            raise UserError(f"{where}: `data` names no symbol; add it, or give it with --symbol")
        own = f"{self.symbol}-{self.start:%Y%m%d-%H%M}"
        self.window_id = own if data.window_id is None else str(data.window_id)

    def rows(self):
        """Return the window's rows of a label table, as dicts."""
        kept = [each for each in self.task.annotations or [] if not each.was_cancelled]
        if not kept and self.task.predictions:
            first = self.task.predictions[0]
            return self._read(first, self.window_id, {"annotator": first.model_version, "source": PREDICTION})
        rows = []
        for number, each in enumerate(kept, 1):
            by = each.completed_by
            by = by.get("email", by.get("id")) if isinstance(by, dict) else by
            origin = {"annotator": None if by is None else f"label-studio:{by}", "source": "label-studio"}
            origin |= {"labelled_at": each.created_at, "seconds": each.lead_time}
            rows += self._read(each, self.window_id if number == 1 else f"{self.window_id}~{number}", origin)
        return rows

    def _read(self, annotation, window_id, origin):
        window = {"window_id": window_id, "symbol": self.symbol, "window_start": self.start, "label": "none"}
        rows = []
        for region in annotation.result:
            columns = _own_columns(region.meta or {}) or origin
            if region.type == "timeserieslabels":
                rows.append(window | self._read_span(region.value) | columns)
            elif region.value.choices == ["none"]:
                rows.append(window | columns)
        return rows or [window | origin]  # somebody looked, and marked nothing

    def _read_span(self, value):
        names = value.timeserieslabels
        if len(names) != 1 or names[0].lower() not in CLASSES:
            raise UserError(f"{self.where}: label {names!r} is not one of {', '.join(CLASSES)}; give the region one")
        start, end = self._read_edge("start", value.start), self._read_edge("end", value.end)
        if not 0 <= start <= end < WINDOW_BARS:
            raise UserError(
                f"{self.where}: the region from bar {start} to {end} is not within 0..{WINDOW_BARS - 1}; mark it again"
            )
        return {"expansion_start": start, "expansion_end": end, "label": names[0].lower()}

    def _read_edge(self, name, edge):
        """Return the bar nearest to an edge, which is a bar or a time."""
        is_number = isinstance(edge, (int, float))
        if edge is None or (is_number and not math.isfinite(edge)):
            raise UserError(f"{self.where}: {name} = {edge!r} is neither a bar nor a time; mark the region again")
        if is_number and abs(edge) < FIRST_EPOCH_SECONDS:
            return math.floor(edge + 0.5)
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


def _own_columns(meta):
    """Return the columns of the table that a region of ours carries; of another's region none."""
    if meta.get("tool") != TOOL:
        return {}
    return {"source": None} | {
        name: cell for name, cell in meta.items() if name in OPTIONAL and isinstance(cell, (str, int, float))
    }


def _read_time(value, where):
    """Return a time as a UTC Timestamp; texts without a zone are refused."""
    try:
        if isinstance(value, (int, float)):
            stamp = pd.Timestamp(value, unit="ms" if value >= FIRST_EPOCH_MILLISECONDS else "s", tz="UTC")
        else:
            stamp = pd.Timestamp(value)
    except (ValueError, TypeError, OverflowError) as error:
        raise UserError(f"{where}: {value!r} is not a time") from error
    if pd.isna(stamp):
        raise UserError(f"{where}: {value!r} is not a time")
    if stamp.tzinfo is None:
        raise UserError(f"{where}: the time {value!r} carries no zone; write it as 2024-03-05T15:00:00Z")
    return stamp.tz_convert("UTC")


def _known(value):
    """Return a cell, None where it is missing."""
    return None if pd.isna(value) else value
