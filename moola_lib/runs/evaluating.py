"""`moola evaluate`: would a model have worked on these bars? Detections by regime, and what followed them."""

import numpy as np
import pandas as pd

from moola_lib.errors import UserError
from moola_lib.runs.predicting import open_model, settle_manner
from moola_lib.runs.terminal import open_console

NO_PROMISE = "A description of these bars, no forecast and no promise: costs and fills are not in it."
WORDS = {"group": "bars", "n_found": "detections", "per_session": "a session", "n_labelled": "labelled"}
WORDS |= {"false_per_session": "false a session", "n_events": "events", "n_days": "days"}


def evaluate_bars(source, model, labels=None, *, device="auto", reading=None, stream=None, **manner):
    """Scan bars with a model and print what the detections are worth.

    Parameters
    ----------
    source : str or Path
        A file that `load_bars` reads.
    model : str
        A name in `data/models`, or a file of weights with its card beside it.
    labels : str or Path, optional
        A label table of these bars; precision and recall are of its days alone.
    device : str
    reading : dict, optional
        tz, stamp, symbol, scale of `load_bars`.
    stream : text file, optional
        Default standard output.
    **manner
        is_causal, stride, threshold, alarms_per_session of `settle_manner`.

    Returns
    -------
    dict of str to DataFrame
        `detections` of `score_detections`, `events` of `event_study` (absent
        where there are too few), `drift` of `drift_from` (absent where the
        card holds no distributions).

    Raises
    ------
    UserError
        Model, bars and labels do not fit each other, or nothing is left beside the training days.
    """
    opened = open_model(model, device)
    manner = settle_manner(opened, **manner)
    from moola_lib.evaluation.detections import score_detections
    from moola_lib.features.drift import drift_from
    from moola_lib.features.table import build_features
    from moola_lib.learning.causal_scan import scan_causally
    from moola_lib.learning.scan import scan
    from moola_lib.market.bars import load_bars

    bars = load_bars(source, **(reading or {}))
    frame, notes = bars.frame, opened.card["notes"]
    table = build_features(bars, **opened.features)
    seen, n_left_out = _leave_out_training(frame.index, notes.get("training_days", ()))
    labelled = None
    if labels is not None:
        labelled, seen = _read_labels(labels, frame, table.starts, seen)
    run = scan_causally if manner.is_causal else scan
    found = run(opened.model, table, stride=manner.stride, threshold=manner.threshold).detections
    found = found[seen[found["start"].to_numpy()]]
    start, end = (found[name].to_numpy(np.int64) for name in ("start", "end"))
    told = {"detections": score_detections(frame, table.starts, start, labelled, seen=seen)}
    events, why = _study_events(frame, table.starts, start, end)
    if events is not None:
        told["events"] = events
    if "distributions" in notes:
        told["drift"] = drift_from(notes["distributions"], table, frame.index)
    _print(told, opened, manner, bars, n_left_out, why, stream)
    return told


def _leave_out_training(index, training_days):
    """Return which bars are of days that the model was not trained on, and how many days were left out."""
    from moola_lib.market.segments import trade_dates

    days = trade_dates(index)
    is_trained = np.isin(days, np.asarray(list(training_days), "datetime64[D]"))
    if is_trained.all():
        raise UserError("the model was trained on every day of these bars; give bars that it has not seen")
    return ~is_trained, len(np.unique(days[is_trained]))


def _read_labels(path, frame, starts, seen):
    """Return the labelled starts, and which bars are of labelled days."""
    from moola_lib.labels.table import load_labels
    from moola_lib.market.segments import trade_dates
    from moola_lib.windows.places import place_labels

    windows, _ = place_labels(load_labels(path).table, frame, starts)
    seen = seen & np.isin(trade_dates(frame.index), windows.day)
    if not seen.any():
        raise UserError(f"{path} has no label on a day of these bars that the model was not trained on")
    every = windows.place[:, None] + windows.spans[..., 0]
    return np.unique(every[windows.spans[..., 0] >= 0]), seen


def _study_events(frame, starts, first, last):
    """Return (the event study, ""), or (None, why there is none)."""
    from moola_lib.evaluation.event_study import event_study

    if len(first) == 0:
        return None, "nothing was detected"
    try:
        return event_study(frame, starts, first, last), ""
    except UserError as error:
        return None, str(error)


def _print(told, opened, manner, bars, n_left_out, why, stream):
    """Print the tables with what they rest on."""
    console = open_console(stream)
    console.print(
        f"{opened.name} on {bars.symbol}, {len(bars):,} bars; {manner.mode}, threshold {manner.threshold:.4g} "
        f"({manner.source}); {n_left_out} days left out that the model was trained on",
        markup=False,
        soft_wrap=True,
    )
    for name, title in (
        ("detections", "Detections by part of the day and volatility"),
        ("events", "What followed, in ATR, beside random bars of the same half hour"),
        ("drift", "Features against those of the training bars"),
    ):
        if name in told:
            console.print(_table(told[name], title))
    if why:
        console.print(f"no event study: {why}", markup=False, soft_wrap=True)
    if "drift" not in told:
        console.print("no drift: the card holds no distributions of the training bars", markup=False)
    console.print(NO_PROMISE, markup=False)


def _table(frame, title):
    """Return a rich table of a frame: numbers to three digits, missing ones as a dash."""
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title, title_justify="left", title_style="bold", header_style="bold")
    shown = frame.drop(columns=["figure"], errors="ignore")
    for name in shown.columns:
        table.add_column(WORDS.get(name, name.replace("_", " ")))
    for row in shown.itertuples(index=False):
        table.add_row(*(Text(_say(value)) for value in row))
    return table


def _say(value):
    """Return a cell's text."""
    if isinstance(value, str):
        return value
    if pd.isna(value):
        return "–"
    return f"{value:,}" if isinstance(value, (int, np.integer)) else f"{value:.3f}"
