"""The methods that the skill studies compare: the baselines of record, and the segment posterior with its parts."""

from dataclasses import replace
from functools import partial

import numpy as np
import torch

from moola_lib.evaluation.baselines import answer_baseline
from moola_lib.evaluation.learned_baselines import fit_boosting, fit_logistic
from moola_lib.evaluation.oracle import Posterior
from moola_lib.evaluation.segment_baselines import answer_posterior, fit_segments
from moola_lib.evaluation.skill import LINEAR, answer_study, skill_frame, study_bare_law
from moola_lib.evaluation.spans import STARTS
from moola_lib.features.sets import upside_down
from moola_lib.features.table import FeatureTable
from moola_lib.learning.finetune import FinetuneSettings, finetune
from moola_lib.learning.linear_fit import STEADY, LinearPenalty
from moola_lib.models import build_model
from moola_lib.windows.gather import WindowGatherer

CONTRAST_BARS, OUTER_BARS = (1, 3, 6, 12, 24), (10, 20)  # those of the localiser's head
# A bare column has no memory, so that an end is a start read backwards: the two may share their weights.
MIRRORED = LinearPenalty(l2=10.0, mirror=100.0, length_l2=0.1, length_roughness=30.0)
HIDDEN_SIZE = 64
FINE = FinetuneSettings(
    n_frozen_epochs=0, unfrozen_learning_rate=3e-3, batch_size=16, is_class_balanced=False, n_threads=1
)
FITTED = {LINEAR: fit_segments, "logistic regression": fit_logistic, "gradient boosting": fit_boosting}


def answer_by_baseline(name, study, train):
    """Yield (name, answer) of one baseline; by its posterior where it has one."""
    if name in FITTED:
        yield name, FITTED[name](train, study.inputs)(study.test)
    else:
        yield name, answer_baseline(name, train, study.test, study.inputs)


def baselines(names):
    """Return the methods of the named baselines."""
    return [partial(answer_by_baseline, name) for name in names]


def answer_by_scores(study, train, *, penalty=STEADY, seed=17):
    """Yield ("linear scores", posterior): what our segment posterior scores without an encoder."""
    fit = fit_segments(
        train,
        study.inputs,
        penalty=penalty,
        n_classes=_n_classes(study),
        seed=seed,
        contrast_bars=CONTRAST_BARS,
        outer_bars=OUTER_BARS,
        upside_down=upside_down(study.inputs.names),
    )
    yield "linear scores", fit(study.test)


def answer_by_encoder(study, train, *, penalty=STEADY, n_epochs=12, seeds=(17,), settings=FINE):
    """Yield ("with encoder", posterior) of the first seed, and ("ensemble of n", mean over all seeds).

    Parameters
    ----------
    study : SkillStudy
    train : LabelledWindows
    penalty : LinearPenalty
        Of the linear scores, which are fitted first and kept.
    n_epochs : int
        Of the encoder's contribution.
    seeds : sequence of int
    settings : FinetuneSettings
    """
    x = study.inputs.of(study.test).x
    gather, train = lay_out(study.inputs, train)
    if not study.has_states:
        train = replace(train, state=np.zeros_like(train.state))
    members = []
    for seed in seeds:
        torch.manual_seed(seed)
        model = build_model(
            "jade_compact",
            n_features=gather.n_features,
            n_classes=_n_classes(study),
            heads=("segment",),
            hidden_size=HIDDEN_SIZE,
            start_range=(int(STARTS[0]), int(STARTS[-1])),
            upside_down=upside_down(study.inputs.names),
        )
        finetune(model, gather, train, replace(settings, n_unfrozen_epochs=n_epochs, linear_penalty=penalty, seed=seed))
        members.append(answer_posterior(model, x))
    yield "with encoder", members[0]
    if len(members) > 1:
        yield f"ensemble of {len(members)}", mean_posterior(members)


def _n_classes(study):
    return 2 if study.has_states else 1


def attain_bare_law(strength=2.0, *, n_labels=139, n_test=4000, n_draws=1, seed=7001, n_bootstrap=1000):
    """Return what is attained on the bare law: constant, linear segments, logistic regression and our linear scores.

    Parameters
    ----------
    strength, n_labels, n_test, n_draws, seed
        As for `study_bare_law`; at the defaults about 20 s.
    n_bootstrap : int

    Returns
    -------
    DataFrame
        As `skill_frame`, the oracle in the first row.
    """
    study = study_bare_law(strength, n_labels=n_labels, n_test=n_test, n_draws=n_draws, seed=seed)
    methods = [*baselines(("constant", LINEAR, "logistic regression")), partial(answer_by_scores, penalty=MIRRORED)]
    return skill_frame(study, answer_study(study, methods), n_bootstrap=n_bootstrap)


def mean_posterior(members):
    """Return the mean of posteriors of the same windows."""
    return Posterior(
        np.mean([one.span for one in members], axis=0),
        None if members[0].state is None else np.mean([one.state for one in members], axis=0),
        members[0].starts,
        np.mean([one.log_bayes_factor for one in members], axis=0),
    )


def lay_out(inputs, windows):
    """Return a gatherer of the windows' inputs laid end to end, and the windows at their places there.

    Parameters
    ----------
    inputs : WindowInputs
    windows : LabelledWindows

    Returns
    -------
    (WindowGatherer, LabelledWindows)
    """
    own = inputs.of(windows)
    n, n_bars, n_features = own.x.shape
    place = np.arange(n) * n_bars
    table = FeatureTable(
        values=own.x.reshape(-1, n_features),
        is_valid=own.is_valid.ravel(),
        starts=place,
        names=own.names,
        ranges=np.tile([-np.inf, np.inf], (n_features, 1)),
        set_id="windows",
        version=1,
        is_flip=np.zeros(n * n_bars, bool),
        options={"extra": []},
    )
    return WindowGatherer(table), replace(windows, place=place)
