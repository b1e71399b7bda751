"""`moola predict`: a trained model applied to bars of any vendor; detections and probabilities written as parquet."""

import contextlib
import json
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from moola_lib import __version__
from moola_lib.errors import UserError
from moola_lib.files import replace_atomically
from moola_lib.runs.project import find_root
from moola_lib.runs.terminal import open_console, say_count

UNCALIBRATED_THRESHOLD = 0.5  # where a card has no threshold and none is asked for: more likely than not
STAMPS = ("start", "end", "start_low", "start_high", "end_low", "end_high")
PROBABILITIES = ["state_probability", "confidence", "none_probability", "log_odds"]
CHARTED = ["symbol", "start_ts", "end_ts", "label", *PROBABILITIES, *(f"{name}_ts" for name in STAMPS[2:])]


@dataclass(frozen=True)
class OpenModel:
    """A model that is ready to scan.

    Attributes
    ----------
    name : str
        Of its folder in `data/models`, or of its file.
    model : Module
        In eval mode on its device.
    card : dict
    features : dict
        Options of `build_features`.
    """

    name: str
    model: object
    card: dict
    features: dict


@dataclass(frozen=True)
class Manner:
    """How a series is scanned, and where its threshold comes from.

    Attributes
    ----------
    is_causal : bool
    stride : int
    threshold : float
    alarms_per_session : float or None
        What the threshold was chosen for; None where it was stated or nobody calibrated it.
    source : str
        The threshold's, in words.
    """

    is_causal: bool
    stride: int
    threshold: float
    alarms_per_session: float | None
    source: str

    @property
    def mode(self):
        """`causal` or `retrospective`."""
        return "causal" if self.is_causal else "retrospective"


def predict_bars(
    source, model, output, *, csv=None, device="auto", reading=None, is_overwriting=False, stream=None, **manner
):
    """Scan a file of bars with a model, write what it finds, and print a short table.

    Parameters
    ----------
    source : str or Path
        A file that `load_bars` reads.
    model : str
        A name in `data/models`, or a file of weights with its card beside it.
    output : str or Path
        A `.parquet` file of detections, which `load_labels` reads as proposals;
        the probabilities of every bar go beside it (`NAME.bars.parquet`).
    csv : str or Path, optional
        The detections for charting tools.
    device : str
    reading : dict, optional
        tz, stamp, symbol, scale of `load_bars`.
    is_overwriting : bool
        Replace existing outputs.
    stream : text file, optional
        Default standard output.
    **manner
        is_causal, stride, threshold, alarms_per_session of `settle_manner`.

    Returns
    -------
    DataFrame
        The detections as written.

    Raises
    ------
    UserError
        An output is in the way, model and bars do not fit each other, or one of
        them cannot be read; then nothing is written.
    """
    outputs = name_outputs(output, csv, is_overwriting)
    opened = open_model(model, device)
    manner = settle_manner(opened, **manner)
    from moola_lib.features.table import build_features
    from moola_lib.learning.causal_scan import scan_causally
    from moola_lib.learning.scan import scan
    from moola_lib.market.bars import load_bars

    bars = load_bars(source, **(reading or {}))
    table = build_features(bars, **opened.features)
    run = scan_causally if manner.is_causal else scan
    with _progress(stream) as show:
        found = run(opened.model, table, stride=manner.stride, threshold=manner.threshold, on_progress=show)
    answers = found.inside_probability, found.start_probability, found.none_probability
    detections = write_prediction(outputs, opened, manner, bars, table.starts, found.detections, answers)
    print_prediction(outputs, opened, manner, bars, detections, stream)
    return detections


def open_model(text, device="auto"):
    """Load a model by name or file, ready to scan.

    Raises
    ------
    UserError
        It is missing, damaged or no such model, its features cannot be made
        from bars, or the device is absent.
    """
    path, name = find_model(text)
    from moola_lib.features.set_ids import options_of
    from moola_lib.features.sets import describe_set
    from moola_lib.learning.device import resolve_device
    from moola_lib.learning.scan import check_scannable
    from moola_lib.models.weights import load_model

    device = resolve_device(device)
    beside = path.with_suffix(".json")
    if path.exists() and not beside.exists():
        raise UserError(
            f"{path} has no card {beside.name} beside it (a checkpoint of training has none); save the model"
        )
    try:
        model, card = load_model(path)
        set_id, names = card["features"]["set_id"], list(card["features"]["names"])
        n_features, notes = card["model"]["n_features"], dict(card["notes"])
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{beside} is not the card of a model ({error!r}); save the model again") from error
    options = options_of(set_id)
    made = [*describe_set(**options)["names"], *(["position"] if "position" in options["extra"] else [])]
    if names != made or n_features != len(made):
        raise UserError(
            f"{path} reads {n_features} columns ({', '.join(names)}), the feature set {set_id} of its card has "
            f"{len(made)} ({', '.join(made)}); train the model again"
        )
    if check_scannable(model, 1).n_states < 2:
        raise UserError(f"{path} does not tell the states before an expansion apart; train a model of two classes")
    return OpenModel(name, model.to(device), {**card, "notes": notes}, options)


def find_model(text):
    """Return the weights' path and the name of a model.

    Raises
    ------
    UserError
        No model has that name.
    """
    path = Path(text)
    if path.suffix == ".safetensors" or path.is_file():
        return path, path.parent.name if path.stem == "model" else path.stem
    folder = find_root() / "data" / "models"
    path = folder / text / "model.safetensors"
    if not path.is_file():
        known = ", ".join(sorted(each.parent.name for each in folder.glob("*/model.safetensors"))) or "none yet"
        raise UserError(
            f"there is no model {text!r} in {folder} (known: {known}); give the name of one, or a .safetensors file"
        )
    return path, text


def settle_manner(opened, *, is_causal=False, stride=5, threshold=None, alarms_per_session=None):
    """Return how to scan: the stated threshold, or the card's for so many alarms a session.

    Parameters
    ----------
    opened : OpenModel
    is_causal : bool
        Answer every bar from the bars up to it.
    stride : int
    threshold : float, optional
    alarms_per_session : float, optional
        Default what the card was calibrated for.

    Raises
    ------
    UserError
        A number is out of range, or alarms are asked for of a card that was not calibrated.
    """
    from moola_lib.learning.scan import check_scannable

    check_scannable(opened.model, stride)
    mode = "causal" if is_causal else "retrospective"
    known = opened.card["notes"].get("alarms", {}).get(mode)
    if threshold is not None:
        if not 0 <= threshold <= 1:
            raise UserError(f"threshold {threshold} is not a confidence; give a number from 0 to 1")
        return Manner(is_causal, stride, threshold, None, "stated")
    if known is None:
        if alarms_per_session is not None:
            raise UserError(
                f"the card of {opened.name} has no {mode} threshold by alarms per session; set it with "
                "evaluation.thresholds.calibrate_alarms, or state one with --threshold"
            )
        return Manner(is_causal, stride, UNCALIBRATED_THRESHOLD, None, "not calibrated: false alarms are not known")
    if alarms_per_session is not None:
        from moola_lib.evaluation.thresholds import choose_threshold

        known = {**known, **choose_threshold(known["rates"], alarms_per_session)}
    low, high = known["expected_low"], known["expected_high"]
    source = (
        f"for {known['alarms_per_session']:g} alarms a session: {known['expected']:.2f} ({low:.2f} to {high:.2f}) in "
        f"{say_count(known['sessions'], 'session')} not trained on"
    )
    if known["stride"] != stride:
        source += f", at stride {known['stride']}"
    return Manner(is_causal, stride, known["threshold"], known["alarms_per_session"], source)


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
    opened : OpenModel
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
        "mode": "causal: each bar from the bars up to it" if manner.is_causal else "retrospective: windows seen whole",
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


def _write_parquet(frame, path, facts):
    """Write a frame with facts in the file's metadata, atomically."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.Table.from_pandas(frame)
    table = table.replace_schema_metadata({**table.schema.metadata, b"moola": json.dumps(facts).encode()})
    with replace_atomically(path) as temporary:
        pq.write_table(table, temporary)


@contextlib.contextmanager
def _progress(stream):
    """Yield a callable that shows how much of a scan is done, on a terminal; else one that does nothing."""
    console = open_console(stream)
    if not console.is_terminal:
        yield None
        return
    from rich.progress import Progress

    with Progress(console=console, transient=True) as progress:
        task = progress.add_task("scanning", total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)
