"""The files of a prediction: detections as proposed labels, every bar's probabilities, and how both were made."""

import json
from pathlib import Path

import pandas as pd

from moola_lib import __version__
from moola_lib.errors import UserError
from moola_lib.files import replace_atomically
from moola_lib.runs.terminal import open_console, say_count

STAMPS = ("start", "end", "start_low", "start_high", "end_low", "end_high")
PROBABILITIES = ["state_probability", "confidence", "none_probability", "log_odds"]
CHARTED = ["symbol", "start_ts", "end_ts", "label", *PROBABILITIES, *(f"{name}_ts" for name in STAMPS[2:])]


def name_outputs(output, csv, is_overwriting):
    """Return the paths to write: `detections`, `bars` and perhaps `csv`.

    Raises
    ------
    UserError
        A name is no parquet file, is a folder, or exists.
    """
    output = Path(output)
    if output.suffix != ".parquet":
        raise UserError(f"the output {output} is no parquet file; give a name that ends in .parquet")
    paths = {"detections": output, "bars": output.with_suffix(".bars.parquet")}
    if csv is not None:
        paths["csv"] = Path(csv)
    for path in paths.values():
        if path.is_dir():
            raise UserError(f"the output {path} is a folder; give the name of a file")
        if path.exists() and not is_overwriting:
            raise UserError(f"{path} exists; choose another name, or replace it with --overwrite")
    return paths


def write_prediction(outputs, opened, manner, bars, starts, detections, answers):
    """Write detections and probabilities, each file whole or not at all; return the detections as written.

    Parameters
    ----------
    outputs : dict of Path
        Of `name_outputs`.
    opened : Localiser
    manner : Manner
    bars : Bars
    starts : ndarray (n_segments,), int64
    detections : DataFrame
        Of a scan.
    answers : tuple of 3 ndarray (n_bars,)
        P(inside), P(start) and P(none).
    """
    from moola_lib.labels.detections import propose_detections, stamp_bars

    head, index = opened.model.segment_head, bars.frame.index
    seen_to = detections["seen_to"].to_numpy()
    stamped = {f"{name}_ts": stamp_bars(detections[name].to_numpy(), index, seen_to) for name in STAMPS}
    seen = pd.Series(index[seen_to.clip(0)]).where(seen_to >= 0) if len(seen_to) else pd.DatetimeIndex([], tz="UTC")
    labels = propose_detections(
        detections,
        index,
        starts,
        symbol=bars.symbol,
        model=opened.name,
        is_causal=manner.is_causal,
        start_range=(head.first_start, head.last_start),
        window_bars=head.window_bars,
    )
    found = labels.assign(**stamped, seen_to_ts=pd.Series(seen), **{n: detections[n].to_numpy() for n in PROBABILITIES})
    names = ("inside_probability", "start_probability", "none_probability")
    by_bar = pd.DataFrame(dict(zip(names, answers, strict=True)), index=index)
    by_bar["mode"] = pd.Categorical([manner.mode] * len(by_bar))
    facts = {
        "mode": manner.mode,
        "stride": manner.stride,
        "threshold": manner.threshold,
        "alarms_per_session": manner.alarms_per_session,
        "knows_none": bool(head.knows_none),
        "model": opened.name,
        "weights_fingerprint": opened.card["weights_fingerprint"],
        "set_id": opened.card["features"]["set_id"],
        "symbol": bars.symbol,
        "bars_fingerprint": bars.fingerprint,
        "moola": __version__,
    }
    _write_parquet(by_bar, outputs["bars"], facts)
    _write_parquet(found, outputs["detections"], facts)
    if "csv" in outputs:
        with replace_atomically(outputs["csv"]) as temporary:
            charted = found[CHARTED].assign(mode=manner.mode)
            charted.to_csv(temporary, index=False, date_format="%Y-%m-%dT%H:%M:%SZ", lineterminator="\n")
    return found


def read_facts(path):
    """Return what a file of `write_prediction` says of itself: mode, stride, threshold, model and bars."""
    import pyarrow.parquet as pq

    return json.loads(pq.read_schema(path).metadata[b"moola"])


def print_prediction(outputs, opened, manner, bars, detections, stream=None):
    """Print what was scanned, how, and what was found."""
    from rich.table import Table
    from rich.text import Text

    from moola_lib.market.segments import trade_dates

    n_sessions = len(set(trade_dates(bars.frame.index).tolist()))
    knows_none = bool(opened.model.segment_head.knows_none)
    states = detections["label"].value_counts().sort_index()
    facts = {
        "model": f"{opened.name} ({opened.card['model']['name']}, {opened.card['features']['set_id']})",
        "mode": _say_mode(opened, manner),
        "bars": f"{len(bars):,} in {say_count(n_sessions, 'session')}, every {manner.stride} bars a window",
        "threshold": f"{manner.threshold:.4g} ({manner.source})",
        "no expansion": "counted in" if knows_none else "not known to the model: all is given that there is one",
        "detections": f"{len(detections):,}, {len(detections) / n_sessions:.2f} a session",
        "states before": ", ".join(f"{count:,} {state}" for state, count in states.items()) or "none",
    }
    table = Table(title=f"Expansions in {bars.symbol}", title_justify="left", title_style="bold", header_style="bold")
    for name in ("fact", "value"):
        table.add_column(name)
    for fact, value in facts.items():
        table.add_row(fact, Text(value))
    console = open_console(stream)
    console.print(table)
    for what, path in outputs.items():
        console.print(f"{what} in {path}", markup=False, soft_wrap=True)


def _say_mode(opened, manner):
    """Return how bars were answered, and whether the model was trained for it."""
    if not manner.is_causal:
        return "retrospective: windows seen whole"
    doubt = "" if opened.was_cut else "; the model was trained on whole windows, the causal arm on cut ones"
    return f"causal: each bar from the bars up to it{doubt}"


def _write_parquet(frame, path, facts):
    """Write a frame with facts in the file's metadata, atomically."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.Table.from_pandas(frame)
    table = table.replace_schema_metadata({**table.schema.metadata, b"moola": json.dumps(facts).encode()})
    with replace_atomically(path) as temporary:
        pq.write_table(table, temporary)
