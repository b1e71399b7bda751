"""`moola calibrate`: set a model's threshold by the false alarms a session that one is ready to bear."""

from moola_lib.runs.predicting import find_model, open_model, show_progress
from moola_lib.runs.terminal import open_console


def calibrate_model(
    model, source, *, alarms_per_session=2.0, is_causal=False, stride=5, device="auto", reading=None, stream=None
):
    """Scan sessions that a model was not trained on, choose its threshold, and keep it in its card.

    Parameters
    ----------
    model : str
        A name in `data/models`, or a file of weights with its card beside it.
    source : str or Path
        Bars of the instrument that it will be used on: thresholds do not carry
        over from simulated to real bars.
    alarms_per_session : float
        To allow; every alarm counts as false, since nobody looked at these sessions.
    is_causal : bool
        Of causal scans, which have a threshold of their own.
    stride : int
    device : str
    reading : dict, optional
        tz, stamp, symbol, scale of `load_bars`.
    stream : text file, optional
        Default standard output.

    Returns
    -------
    dict
        What the card now holds, see `thresholds.calibrate_alarms`.

    Raises
    ------
    UserError
        Model and bars do not fit each other, no session is left, or so few alarms cannot be had.
    """
    opened = open_model(model, device)
    from moola_lib.evaluation.thresholds import calibrate_alarms, store_alarms
    from moola_lib.features.table import build_features
    from moola_lib.market.bars import load_bars
    from moola_lib.models.cards import check_understands

    bars = load_bars(source, **(reading or {}))
    check_understands(opened.card, bars=bars)
    with show_progress(stream) as show:
        found = calibrate_alarms(
            opened.model,
            build_features(bars, **opened.features),
            bars.frame.index,
            opened.card["notes"].get("training_days", []),
            alarms_per_session=alarms_per_session,
            is_causal=is_causal,
            stride=stride,
            on_progress=show,
        )
    store_alarms(find_model(model)[0], found, is_causal=is_causal)
    open_console(stream).print(
        f"{opened.name}: {'causal' if is_causal else 'retrospective'} threshold {found['threshold']:.4g} "
        f"({found['threshold_low']:.4g} to {found['threshold_high']:.4g}) for {alarms_per_session:g} alarms a session, "
        f"on {found['sessions']} sessions of {bars.symbol} that it was not trained on",
        markup=False,
        soft_wrap=True,
    )
    return found
