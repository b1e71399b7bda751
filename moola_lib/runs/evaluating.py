"""`moola evaluate`: would a model have worked on these bars? Detections by regime, labelled windows, walk-forward."""

from moola_lib.errors import UserError
from moola_lib.runs.evaluating_labels import Told, place_table, score_windows, store_rescored, walk_labels
from moola_lib.runs.evaluation_tables import print_evaluation, show_status
from moola_lib.runs.predicting import find_model, open_model, settle_manner, show_progress

N_FORWARD_FOLDS = 3


def evaluate_bars(
    source,
    model,
    labels=None,
    *,
    walk_forward=N_FORWARD_FOLDS,
    n_workers=None,
    device="auto",
    reading=None,
    stream=None,
    **manner,
):
    """Scan bars with a model and print what it is worth there.

    Parameters
    ----------
    source : str or Path
        A file that `load_bars` reads.
    model : str
        A name in `data/models`, or a file of weights with its card beside it.
    labels : str or Path, optional
        A label table of these bars. Figures of a named model on labels that
        changed since it was trained are kept in its card.
    walk_forward : int
        Blocks of labels to test the model's recipe on, each trained on those
        before; 0 leaves it out.
    n_workers : int, optional
        Processes that train.
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
        where there are too few), `drift` of `drift_from` (absent where the card
        holds no distributions); with labels `chance` of `compare_chance`,
        `windows` of `score_new_windows`, `rescored` of `rescore` (where they
        changed) and `walk_forward`. What is absent is explained in print.

    Raises
    ------
    UserError
        Model, bars and labels do not fit each other, or nothing is left beside the training days.
    """
    if walk_forward < 0:
        raise UserError(
            f"walk-forward over {walk_forward} blocks is not possible; give 1 or more, or 0 to leave it out"
        )
    opened = open_model(model, device)
    manner = settle_manner(opened, **manner)
    from moola_lib.evaluation.watching import Series, label_series, watch_series
    from moola_lib.features.table import build_features
    from moola_lib.market.bars import load_bars
    from moola_lib.models.cards import check_understands

    bars = load_bars(source, **(reading or {}))
    check_understands(opened.card, bars=bars)
    frame, table = bars.frame, build_features(bars, **opened.features)
    placed = None if labels is None else place_table(labels, opened, frame, table)
    series = Series(frame, table) if placed is None else label_series(frame, table, placed.windows)
    with show_progress(stream) as show:
        watch = watch_series(
            opened.model,
            series,
            training_days=opened.card["notes"].get("training_days", ()),
            threshold=manner.threshold,
            is_causal=manner.is_causal,
            stride=manner.stride,
            on_progress=show,
        )
    told = Told()
    _tell_detections(told, watch, opened)
    if placed is not None:
        rescored = score_windows(told, opened, placed)
        with show_status("training on past labels, testing on the next", stream):
            walk_labels(told, opened, placed, walk_forward, n_workers=n_workers)
        path, name = find_model(model)
        if rescored is not None and name is not None:
            store_rescored(path, rescored)
            told.say("rescored", f"the figures on the labels as they are now are kept in the card of {name}")
    print_evaluation(told, opened, manner, bars, watch.n_left_out, stream)
    return told.tables


def _tell_detections(told, watch, opened):
    """Tell what the detections are worth, what followed them, and whether the bars are like those of training."""
    from moola_lib.evaluation.detections import score_detections
    from moola_lib.evaluation.transfer import compare_chance, study_events
    from moola_lib.features.drift import drift_from

    frame, table, notes = watch.series.frame, watch.series.table, opened.card["notes"]
    labelled = watch.labelled
    if labelled is not None and len(labelled) == 0:
        told.say("detections", "no labelled expansion lies on a day that the model was not trained on")
        labelled = None
    told.tables["detections"] = score_detections(
        frame, table.starts, watch.first, labelled, seen=watch.seen, looked=watch.looked
    )
    if labelled is not None:
        told.say(
            "detections",
            "judged: detections in the inner bars of labelled windows, where a labeller decided, and at labels; only "
            "these can be right or false, and false ones are counted for a session's number of such bars",
        )
        if len(watch.first):
            told.tables["chance"] = compare_chance(watch)
    events, why = study_events(watch)
    if events is None:
        told.say("events", f"no event study: {why}")
    else:
        told.tables["events"] = events
        told.say("events", "the ATR at the end of an expansion is itself large: beside it a usual move looks small")
    if "distributions" in notes:
        told.tables["drift"] = drift = drift_from(notes["distributions"], table, frame.index)
        n_drifted = int((drift["verdict"] == "drifted").sum())
        if n_drifted:
            told.say(
                "drift",
                f"{n_drifted} of {len(drift)} features drifted: these bars are unlike those that the model was trained "
                "on, and figures from there need not hold here",
            )
    else:
        told.say("drift", "no drift: the card holds no distributions of the training bars")
