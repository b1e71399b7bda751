"""Fit arms fold by fold and assemble their out-of-fold answers."""

import itertools
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from threadpoolctl import threadpool_limits

from moola_lib.evaluation.baselines import BASELINES, answer_baseline, coin_flip_baseline
from moola_lib.evaluation.decoding import decode_spans
from moola_lib.evaluation.metrics import Prediction, best_threshold
from moola_lib.evaluation.posteriors import start_marginal
from moola_lib.labels.targets import COUNTDOWN_CLIP_BARS
from moola_lib.learning.calibrate import fit_null, fit_temperature
from moola_lib.learning.checkpoints import Checkpoints
from moola_lib.learning.device import usable_cores
from moola_lib.learning.finetune import finetune
from moola_lib.learning.outputs import predict_windows, read_outputs
from moola_lib.models import build_model
from moola_lib.models.weights import load_encoder, load_model
from moola_lib.windows.folds import Fold, check_disjoint

N_FLIPS = 25


@dataclass(frozen=True)
class Arm:
    """One way to train: which encoder to start from, and for how long each phase.

    Attributes
    ----------
    name : str
    model : str
        A key of MODELS.
    options : dict
        The model's options.
    encoder : Path or None
        Pre-trained weights; None starts at random.
    weights : Path or None
        A whole localiser to go on from (see `learning.amortise`), instead.
    settings : FinetuneSettings
    """

    name: str
    model: str
    settings: object
    options: dict = field(default_factory=dict)
    encoder: object = None
    weights: object = None


@dataclass(frozen=True)
class FoldResult:
    """What one fold of one arm gave.

    Attributes
    ----------
    history : list of dict
    outputs : dict of ndarray
        The model's outputs on the test windows.
    inside_threshold : float
        Chosen on the training windows.
    transfer : dict or None
        What `load_encoder` reported.
    weights : dict of ndarray
        The trained model's tensors; `fold_model` builds it again.
    calibration : dict or None
        What `fit_temperature` reported, where there was a held-out part.
    null : dict or None
        What `fit_null` reported of ordinary windows. The outputs and weights are
        from before it: labelled windows are asked where their expansion is, not whether.
    """

    history: list
    outputs: dict
    inside_threshold: float
    transfer: dict | None
    weights: dict
    calibration: dict | None = None
    null: dict | None = None


def run_fold(
    arm,
    gather,
    windows,
    fold,
    *,
    features,
    validation_frac=0.15,
    seed=17,
    ordinary=None,
    folder=None,
    resume=False,
    on_epoch=None,
):
    """Train one arm on one fold and answer its test windows.

    Parameters
    ----------
    arm : Arm
    gather : WindowGatherer
    windows : LabelledWindows
    fold : Fold
    features : dict
        `set_id` and `names`, checked against the encoder's card.
    validation_frac : float
        Share of the training windows, the latest days, held out to choose the
        epoch; 0 trains to the last epoch.
    seed : int
        Of the model's initial weights and of training.
    ordinary : OrdinaryWindows, optional
        Those of the training fold's days set the score of "no expansion".
    folder : Path, optional
        Where checkpoints go.
    resume : bool
    on_epoch : callable(dict), optional

    Returns
    -------
    FoldResult

    Raises
    ------
    AssertionError
        A training and a test window share a bar or a day: the folds are of other windows.
    """
    train, test = windows.take(fold.train), windows.take(fold.test)
    check_disjoint(train.place, test.place, train.day, test.day)
    train, validation = hold_out(train, validation_frac)
    torch.manual_seed(seed)
    if arm.weights is not None:
        model, _ = load_model(arm.weights, features=features)
    else:
        model = build_model(arm.model, n_features=gather.n_features, n_classes=2, **arm.options)
    model = model.to(gather.device)
    transfer = load_encoder(model, arm.encoder, features=features) if arm.encoder is not None else None
    history = finetune(
        model,
        gather,
        train,
        replace(arm.settings, seed=seed),
        validation=validation,
        checkpoints=Checkpoints(folder, top_k=1) if folder is not None else None,
        resume=resume,
        on_epoch=on_epoch,
    )
    calibration = null = None
    # a causal arm answers cut windows: how sure whole ones may be is not its question
    is_calibrated = hasattr(model, "segment_head") and not arm.settings.is_causal
    if validation is not None and is_calibrated:
        calibration = fit_temperature(model, gather, validation)
    outputs = predict_windows(model, gather, test.place)
    threshold = 0.5
    if "inside_probability" in outputs:
        own = predict_windows(model, gather, train.place)
        threshold = best_threshold(own["inside_probability"], train.targets()["inside"] > 0.5, own["is_valid"])
    weights = {name: value.detach().cpu().numpy().copy() for name, value in model.state_dict().items()}
    own = () if ordinary is None else ordinary.on_days(windows.day[fold.train])
    if len(own) and is_calibrated and not model.segment_head.knows_none:
        null = fit_null(model, gather, train if validation is None else validation, own)
    return FoldResult(history, outputs, threshold, transfer, weights, calibration, null)


def fold_model(arm, gather, result):
    """Return the model that a fold trained, in eval mode on the gatherer's device."""
    if arm.weights is not None:
        model, _ = load_model(arm.weights)
    else:
        model = build_model(arm.model, n_features=gather.n_features, n_classes=2, **arm.options)
    model.load_state_dict({name: torch.as_tensor(value) for name, value in result.weights.items()}, strict=True)
    return model.to(gather.device).eval()


def hold_out(train, frac):
    """Split training windows into (fit, held out): the latest whole days, at least one, at most half.

    Parameters
    ----------
    train : LabelledWindows
        In time order.
    frac : float
        0 holds nothing out and returns (train, None), as does a single day.
    """
    days = np.unique(train.day)
    if frac <= 0 or len(days) < 2:
        return train, None
    wanted = max(round(frac * len(train)), 1)
    for count in range(1, max(len(days) // 2, 1) + 1):
        is_held = np.isin(train.day, days[-count:])
        if is_held.sum() >= wanted:
            break
    return train.take(~is_held), train.take(is_held)


def assemble(results, folds, n, *, decoder="inside"):
    """Put the folds' answers back in the windows' order.

    Parameters
    ----------
    results : list of FoldResult
    folds : list of Fold
    n : int
        Number of windows.
    decoder : str
        See `decoding.decode_spans`.

    Returns
    -------
    (Prediction, dict of ndarray)
        Decoded answers, and the raw outputs.
    """
    outputs, is_inside = {}, None
    for result, fold in zip(results, folds, strict=True):
        for name, value in result.outputs.items():
            outputs.setdefault(name, np.zeros((n, *value.shape[1:]), value.dtype))[fold.test] = value
        if "inside_probability" in result.outputs:
            if is_inside is None:
                is_inside = np.zeros((n, result.outputs["inside_probability"].shape[1]), bool)
            is_inside[fold.test] = result.outputs["inside_probability"] >= result.inside_threshold
    start = end = None
    if outputs.keys() & {"inside_probability", "centre", "span_probability"}:
        start, end = decode_spans(outputs, decoder)
    prediction = Prediction(
        start=start,
        end=end,
        countdown=outputs.get("countdown"),
        inside_probability=outputs.get("inside_probability"),
        is_inside=is_inside,
        type_probability=outputs.get("type_probability"),
        start_probability=start_marginal(outputs["span_probability"]) if "span_probability" in outputs else None,
    )
    return prediction, outputs


def ensemble(outputs, *, decoder="segment"):
    """Average the posteriors of several fits of the same folds, and answer from their mean.

    Parameters
    ----------
    outputs : list of dict of ndarray
        The raw outputs of each member, from `assemble`, with `span_probability`.
    decoder : str
        See `decoding.decode_spans`.

    Returns
    -------
    Prediction
        A bar is called inside where most of its probability says so.
    """
    mean = {
        name: np.mean([each[name] for each in outputs], axis=0)
        for name in ("span_probability", "inside_probability", "type_probability")
        if name in outputs[0]
    }
    start, end = decode_spans(mean, decoder)
    starts = start_marginal(mean["span_probability"])
    median = (np.cumsum(starts, axis=1) >= 0.5).argmax(axis=1)
    return Prediction(
        start=start,
        end=end,
        countdown=np.clip(median[:, None] - np.arange(starts.shape[1]), -COUNTDOWN_CLIP_BARS, COUNTDOWN_CLIP_BARS),
        inside_probability=mean["inside_probability"],
        is_inside=mean["inside_probability"] >= 0.5,
        type_probability=mean.get("type_probability"),
        start_probability=starts,
    )


def model_answers(arm, gather, windows, folds, results, *, decoder="segment"):
    """Return a callable that answers given inputs with the models of the folds, in the form of a baseline.

    Parameters
    ----------
    arm : Arm
    gather : WindowGatherer
    windows : LabelledWindows
    folds : list of Fold
    results : list of FoldResult
    decoder : str

    Returns
    -------
    callable(train, test, inputs) -> Prediction
        `test` must be the test windows of one of the folds; the inputs' `x` may differ from the windows' own.
    """
    models = {tuple(windows.window_id[fold.test]): r for fold, r in zip(folds, results, strict=True)}

    def answer(train, test, inputs):
        result = models[tuple(test.window_id)]
        own = inputs.of(test)
        x, is_valid = (torch.as_tensor(part).to(gather.device) for part in (own.x, own.is_valid))
        model = fold_model(arm, gather, result)
        with torch.no_grad():
            outputs = {**read_outputs(model, model(x)), "is_valid": is_valid}
        outputs = {name: value.cpu().numpy() for name, value in outputs.items()}
        alone = FoldResult([], outputs, result.inside_threshold, None, {})
        return assemble([alone], [Fold(np.zeros(0, np.int64), np.arange(len(test)), 0)], len(test), decoder=decoder)[0]

    return answer


def cross_fit_baselines(windows, folds, inputs, *, seed=17):
    """Return every baseline's out-of-fold answers.

    Those that know no state answer the majority's, so that a figure of both
    edges and the state has a baseline too. The coin is flipped many times: one
    lucky draw is no level to beat.

    Parameters
    ----------
    windows : LabelledWindows
    folds : list of Fold
    inputs : WindowInputs
        Of all these windows; without stamps, `timestamp only` is left out.
    seed : int

    Returns
    -------
    dict of str to Prediction
        The keys of BASELINES, and `coin flip` (a list of draws). Windows that
        no fold tests hold zeros.
    """
    rng = np.random.default_rng(seed)

    def answer(name, fold):
        return answer_baseline(name, windows.take(fold.train), windows.take(fold.test), inputs)

    def flip(fold):
        return coin_flip_baseline(windows.take(fold.train), windows.take(fold.test), rng=rng)

    def join(parts):
        columns = Prediction.__dataclass_fields__
        return Prediction(**{column: _gather_column(parts, folds, column, len(windows)) for column in columns})

    names = [name for name in BASELINES if name != "timestamp only" or inputs.minute is not None]
    # whole fits side by side: on problems this small two threads of one fit get in each other's way
    with ThreadPoolExecutor(usable_cores(), initializer=threadpool_limits, initargs=(1,)) as pool:
        parts = list(pool.map(lambda pair: answer(*pair), itertools.product(names, folds)))
    answers = {name: join(parts[k * len(folds) : (k + 1) * len(folds)]) for k, name in enumerate(names)}
    majority = answers["majority"].type_probability
    for name, found in answers.items():
        if found.type_probability is None:
            answers[name] = replace(found, type_probability=majority)
    return answers | {"coin flip": [join([flip(fold) for fold in folds]) for _ in range(N_FLIPS)]}


def _gather_column(parts, folds, column, n):
    """Put one column of the folds' predictions in the windows' order."""
    first = getattr(parts[0], column)
    if first is None:
        return None
    out = np.zeros((n, *np.shape(first)[1:]), np.asarray(first).dtype)
    for part, fold in zip(parts, folds, strict=True):
        out[fold.test] = getattr(part, column)
    return out
