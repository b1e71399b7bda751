"""What labels say of a model: its windows scored, scored again where labels changed, and its recipe walked forward."""

from dataclasses import dataclass, field

import numpy as np

from moola_lib.errors import UserError
from moola_lib.files import plain, read_json, write_json
from moola_lib.runs import lineage
from moola_lib.runs.project import find_root
from moola_lib.runs.terminal import say_count

KEPT = ("metric", "meaning", "value", "low", "high", "best_baseline", "baseline")  # of a figure, in a card


@dataclass
class Told:
    """What an evaluation found.

    Attributes
    ----------
    tables : dict of str to DataFrame
    notes : dict of str to list of str
        By table, what its reader must know, or why there is none.
    """

    tables: dict = field(default_factory=dict)
    notes: dict = field(default_factory=dict)

    def say(self, name, sentence):
        """Add a sentence to a table's."""
        self.notes.setdefault(name, []).append(sentence)


@dataclass(frozen=True)
class LabelledBars:
    """Labels placed on the bars of an evaluation.

    Attributes
    ----------
    labels : Labels
    windows : LabelledWindows
    is_new : ndarray (n,), bool
        Windows on days that the model was not trained on.
    frame : DataFrame
    table : FeatureTable
    gather : WindowGatherer
    """

    labels: object
    windows: object
    is_new: np.ndarray
    frame: object
    table: object
    gather: object


def place_table(path, opened, frame, table):
    """Read a label table and place it on bars.

    Parameters
    ----------
    path : str or Path
    opened : Localiser
    frame : DataFrame
    table : FeatureTable

    Returns
    -------
    LabelledBars

    Raises
    ------
    UserError
        It cannot be read, or is of other bars.
    """
    from moola_lib.labels.table import load_labels
    from moola_lib.windows.gather import WindowGatherer
    from moola_lib.windows.places import place_labels

    labels = load_labels(path)
    windows, _ = place_labels(labels.table, frame, table.starts)
    is_new = ~np.isin(windows.day, _training_days(opened))
    return LabelledBars(
        labels, windows, is_new, frame, table, WindowGatherer(table, next(opened.model.parameters()).device)
    )


def score_windows(told, opened, placed):
    """Score the model's answers to windows of days that it was not trained on, and again where their labels changed.

    Parameters
    ----------
    told : Told
        Gains `windows` and `rescored`.
    opened : Localiser
    placed : LabelledBars

    Returns
    -------
    dict or None
        What the card of a named model should keep, see `store_rescored`; None
        where the labels are those that it was trained on, or of other windows.
    """
    from moola_lib.evaluation.rescoring import answer_windows, score_new_windows

    if not placed.is_new.any():
        days = say_count(_n_days(placed.windows), "labelled day")
        told.say("windows", f"no labelled window is scored: the model was trained on all {days} of these bars")
        return None
    new, notes = placed.windows.take(placed.is_new), opened.card["notes"]
    answer, is_valid = answer_windows(
        opened.model,
        placed.gather,
        new.place,
        inside_threshold=notes.get("inside_threshold", 0.5),
        decoder=notes.get("decoder", "segment"),
    )
    snapshot = _read_snapshot(notes)
    before = None if snapshot is None else _place_quietly(snapshot, placed)
    trained, of_what = _trained_windows(opened, placed, before)
    scores = score_new_windows(new, answer, trained, placed.gather, placed.frame, is_valid=is_valid)
    told.tables["windows"] = scores
    told.say(
        "windows",
        f"{say_count(len(new), 'window')} on {say_count(_n_days(new), 'day')} that the model was not trained on "
        f"({len(placed.windows) - len(new)} left out), each seen whole; "
        + (f"baselines {of_what}" if scores["best_baseline"].notna().any() else "too few days to fit baselines on"),
    )
    if placed.labels.is_proposed:
        told.say("windows", "the labels were proposed by a rule: the figures are agreement with that rule, not skill")
    return _rescore(told, snapshot, before, placed, answer, is_valid, scores)


def walk_labels(told, opened, placed, n_folds, *, n_workers=None):
    """Train the model's recipe on past labels and test it on the next, block by block.

    Parameters
    ----------
    told : Told
        Gains `walk_forward`, or the reason why it is left out.
    opened : Localiser
    placed : LabelledBars
    n_folds : int
        0 leaves it out without a word.
    n_workers : int, optional
        Of `run_fits`.
    """
    from moola_lib.evaluation.inputs import collect_inputs
    from moola_lib.evaluation.walk_forward import walk_forward
    from moola_lib.market.segments import trade_dates
    from moola_lib.runs.recipe import rebuild_arm, validation_frac
    from moola_lib.windows.forward_folds import forward_folds

    if n_folds == 0:
        return
    windows, sessions = placed.windows, np.unique(trade_dates(placed.frame.index))
    try:
        arm = rebuild_arm(find_root(), opened.card)
        folds = forward_folds(windows.place, windows.day, n_folds=n_folds, sessions=sessions)
        told.tables["walk_forward"] = walk_forward(
            [arm],
            placed.gather,
            windows,
            folds,
            collect_inputs(windows, placed.gather, placed.frame),
            features={"set_id": placed.table.set_id, "names": placed.gather.names},
            decoder=opened.card["notes"].get("decoder", "segment"),
            seed=arm.settings.seed,
            n_workers=n_workers,
            **validation_frac(opened.card),
        )
    except UserError as error:
        told.say("walk_forward", f"no walk-forward: {error}")
        return
    told.say(
        "walk_forward",
        f"the recipe of {opened.name} (arm {arm.name}), trained anew on the labels before each block; windows: "
        "trained on -> tested on; baselines are fitted on the same past",
    )
    _say_seen_days(told, arm, windows.day[folds[0].test[0]])


def store_rescored(path, found):
    """Put what `score_windows` returned into the notes of a model's card.

    Parameters
    ----------
    path : Path
        Of the weights; the card lies beside them.
    found : dict
        `labels` (fingerprint), `n_windows`, `metrics` (rows).
    """
    beside = path.with_suffix(".json")
    card = read_json(beside)
    write_json(beside, card | {"notes": card["notes"] | {"rescored": plain(found)}})


def _rescore(told, snapshot, before, placed, answer, is_valid, scores):
    """Tell how the figures change with the labels; return what a card should keep, or None."""
    from moola_lib.evaluation.rescoring import rescore, shared_rows
    from moola_lib.labels.snapshots import compare_labels, fingerprint_labels

    found = fingerprint_labels(placed.labels.table)
    if before is None or found == fingerprint_labels(snapshot):
        return None
    new = placed.windows.take(placed.is_new)
    were, now = shared_rows(before, new)
    if len(np.intersect1d(before.window_id, placed.windows.window_id)) == 0:
        return None  # labels of something else
    change = f"the labels changed since the model was trained: {compare_labels(snapshot, placed.labels.table)}"
    if len(now):
        told.tables["rescored"] = rescore(before.take(were), new.take(now), answer.take(now), is_valid=is_valid[now])
        told.say("rescored", f"{change}; {say_count(len(now), 'window')} of both, on days that it was not trained on")
    else:
        told.say("rescored", f"{change}; no window of both lies on a day that it was not trained on")
    rows = [{name: row[name] for name in KEPT} for row in scores.to_dict("records")]
    return {"labels": found, "n_windows": len(new), "metrics": rows}


def _trained_windows(opened, placed, before):
    """Return (the windows to fit baselines on, in words what they are); None to cross-fit them."""
    known = [(before, "fitted on the labels that the model was trained on")]
    known.append((placed.windows, "fitted on these labels' windows of the days that the model was trained on"))
    for windows, words in known:
        if windows is not None:
            own = windows.take(np.isin(windows.day, _training_days(opened)))
            if own.has_expansion.any():
                return own, words
    return None, "cross-fitted on these windows, since the bars hold none of the labels that the model was trained on"


def _read_snapshot(notes):
    """Return the labels that a model was trained on; None where they are not at hand."""
    from moola_lib.labels.snapshots import read_snapshot

    found = (notes.get("labels") or {}).get("fingerprint")
    try:
        return read_snapshot(lineage.snapshots_folder(find_root()), found) if found else None
    except UserError:
        return None


def _place_quietly(table, placed):
    """Return a label table's windows on the bars; None where it is of others."""
    from moola_lib.windows.places import place_labels

    try:
        return place_labels(table, placed.frame, placed.table.starts)[0]
    except UserError:
        return None


def _say_seen_days(told, arm, first_tested):
    """Say whether pre-training saw bars of the days that are tested, or later ones."""
    from moola_lib.runs.recipe import seen_days

    path = arm.encoder or arm.weights
    if path is None:
        return
    seen = seen_days(path)
    if seen is None:
        told.say("walk_forward", f"which days' bars {path.name} saw in pre-training is not known")
        return
    late = sum(np.datetime64(day) >= first_tested for day in seen)
    if late:
        told.say(
            "walk_forward",
            f"{path.name} saw the bars, not the labels, of {say_count(late, 'day')} from {first_tested} on in "
            "pre-training: to that extent it knew the future",
        )


def _training_days(opened):
    """Return the trade dates that a model was trained on."""
    return np.asarray(list(opened.card["notes"].get("training_days", ())), "datetime64[D]")


def _n_days(windows):
    """Return the number of days that windows are of."""
    return len(np.unique(windows.day))
