"""Losses and their balance, the two training loops, checkpoints, prediction.

Importing this room, and naming the strategies, loads nothing heavy.
"""

STRATEGIES = {
    "fixed": "moola_lib.learning.balance:Fixed",
    "manual": "moola_lib.learning.balance:Manual",
    "initial": "moola_lib.learning.balance:Initial",
    "ema": "moola_lib.learning.balance:RunningMean",
    "uncertainty": "moola_lib.learning.balance:Uncertainty",
    "uncertainty_bounded": "moola_lib.learning.balance:UncertaintyBounded",
    "log": "moola_lib.learning.balance:Log",
    "geometric_mean": "moola_lib.learning.scalarisers:GeometricMean",
    "dwa": "moola_lib.learning.scalarisers:DynamicWeightAverage",
    "famo": "moola_lib.learning.scalarisers:Famo",
    "imtl_l": "moola_lib.learning.scalarisers:ImtlL",
    "stch": "moola_lib.learning.scalarisers:SmoothTchebycheff",
    "pcgrad": "moola_lib.learning.aggregators:PCGrad",
    "mgda": "moola_lib.learning.aggregators:Mgda",
    "aligned_mtl": "moola_lib.learning.aggregators:AlignedMtl",
    "upgrad": "moola_lib.learning.aggregators:UPGrad",
    "gradnorm": "moola_lib.learning.aggregators:GradNorm",
}

MODES = {False: "retrospective", True: "causal"}  # of a scan, by is_causal


def predict(model, bars, *, is_causal=False, stride=5, threshold=None, device="auto", batch_size=256, on_progress=None):
    """Find expansions in a whole series with a trained model.

    Parameters
    ----------
    model : str, Path or localiser.Localiser
        A `.safetensors` file with its card beside it, or one that `open_localiser` opened.
    bars : str, Path, Bars or DataFrame
        One-minute bars, or a file of them that `load_bars` reads without further options.
    is_causal : bool
        Answer each bar from the bars up to it; else each window is seen whole.
    stride : int
        Bars between windows.
    threshold : float, optional
        Least confidence of a detection; default the card's, which `moola
        calibrate` sets by false alarms a session, or 0.5 where it has none.
    device : str
        Where a file's model goes: auto, cpu or cuda.
    batch_size : int
        Windows at once.
    on_progress : callable(int, int), optional
        Told windows done, and of how many.

    Returns
    -------
    scan.Scan
        Probabilities of every bar, and the detections by their positions in the series.

    Raises
    ------
    UserError
        The model cannot be read or does not understand these bars, or no window
        of 105 bars fits into them.
    """
    from pathlib import Path

    from moola_lib.features.table import build_features
    from moola_lib.learning.causal_scan import scan_causally
    from moola_lib.learning.localiser import UNCALIBRATED_THRESHOLD, Localiser, open_localiser
    from moola_lib.learning.scan import scan
    from moola_lib.market.bars import load_bars
    from moola_lib.models.cards import check_understands

    opened = model if isinstance(model, Localiser) else open_localiser(model, device=device)
    bars = load_bars(bars) if isinstance(bars, str | Path) else bars
    check_understands(opened.card, bars=bars)
    if threshold is None:
        threshold = (opened.alarms(is_causal) or {}).get("threshold", UNCALIBRATED_THRESHOLD)
    run = scan_causally if is_causal else scan
    table = build_features(bars, **opened.features)
    return run(opened.model, table, stride=stride, threshold=threshold, batch_size=batch_size, on_progress=on_progress)
