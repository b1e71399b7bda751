"""`moola predict`: a trained model applied to bars of any vendor; detections and probabilities written as parquet."""

import contextlib
from dataclasses import dataclass
from pathlib import Path

from moola_lib.errors import UserError
from moola_lib.learning import MODES, predict
from moola_lib.runs.prediction_files import name_outputs, print_prediction, write_prediction
from moola_lib.runs.project import find_root
from moola_lib.runs.terminal import open_console, say_count


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
        return MODES[self.is_causal]


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
    from moola_lib.market.bars import load_bars
    from moola_lib.market.segments import segment_starts

    bars = load_bars(source, **(reading or {}))
    scanning = {"is_causal": manner.is_causal, "stride": manner.stride, "threshold": manner.threshold}
    with show_progress(stream) as show:
        found = predict(opened, bars, **scanning, on_progress=show)
    answers = found.inside_probability, found.start_probability, found.none_probability
    starts = segment_starts(bars.frame, max_gap_minutes=opened.max_gap_minutes)
    detections = write_prediction(outputs, opened, manner, bars, starts, found.detections, answers)
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
    from moola_lib.learning.localiser import open_localiser

    return open_localiser(path, name=name, device=device)


def find_model(text):
    """Return the weights' path and the name of a model; None where a file was given.

    Raises
    ------
    UserError
        No model has that name.
    """
    path = Path(text)
    if path.suffix == ".safetensors" or path.is_file():
        return path, None
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
    opened : Localiser
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
    from moola_lib.learning.localiser import UNCALIBRATED_THRESHOLD
    from moola_lib.learning.scan import check_scannable

    check_scannable(opened.model, stride)
    mode, known = MODES[is_causal], opened.alarms(is_causal)
    if threshold is not None:
        if not 0 <= threshold <= 1:
            raise UserError(f"threshold {threshold} is not a confidence; give a number from 0 to 1")
        return Manner(is_causal, stride, threshold, None, "stated")
    if known is None:
        if alarms_per_session is not None:
            raise UserError(
                f"the card of {opened.name} has no {mode} threshold by alarms per session; set it with "
                "moola calibrate, or state one with --threshold"
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


@contextlib.contextmanager
def show_progress(stream):
    """Yield a callable that shows how much of a scan is done, on a terminal; else one that does nothing."""
    console = open_console(stream)
    if not console.is_terminal:
        yield None
        return
    from rich.progress import Progress

    with Progress(console=console, transient=True) as progress:
        task = progress.add_task("scanning", total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)
