"""The methods that the skill studies compare: the baselines of record, and the segment posterior with its parts."""

from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
import torch

from moola_lib.evaluation.baselines import answer_baseline
from moola_lib.evaluation.learned_baselines import fit_boosting, fit_logistic
from moola_lib.evaluation.oracle import Posterior
from moola_lib.evaluation.segment_baselines import answer_posterior, fit_segments
from moola_lib.evaluation.skill import LINEAR
from moola_lib.evaluation.spans import STARTS
from moola_lib.features.sets import upside_down
from moola_lib.features.table import FeatureTable
from moola_lib.learning.finetune import FinetuneSettings, finetune
from moola_lib.learning.linear_fit import STEADY, LinearPenalty
from moola_lib.models import build_model
from moola_lib.windows.gather import WindowGatherer

CONTRAST_BARS = (1, 3, 6, 12, 24)
# A bare column has no memory, so that an end is a start read backwards: the two may share their weights.
MIRRORED = LinearPenalty(l2=10.0, mirror=100.0, length_l2=0.1, length_roughness=30.0)
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


@dataclass(frozen=True)
class SegmentPosterior:
    """Our method: linear scores of the posterior, then what an encoder adds, then the mean over seeds.

    Attributes
    ----------
    penalty : LinearPenalty
    n_epochs : int
        Of the encoder's contribution; 0 leaves it out.
    seeds : tuple of int
        Members of the ensemble.
    hidden_size : int
    learning_rate : float
    batch_size : int
    """

    penalty: LinearPenalty = field(default=STEADY)
    n_epochs: int = 0
    seeds: tuple = (17,)
    hidden_size: int = 64
    learning_rate: float = 3e-3
    batch_size: int = 16

    def __call__(self, study, train):
        """Yield (name, posterior) of `linear scores`, `with encoder` and `ensemble of n`."""
        n_classes = 2 if study.has_states else 1
        train = train if study.has_states else replace(train, state=np.zeros_like(train.state))
        options = {"upside_down": upside_down(study.inputs.names)}
        fit = partial(fit_segments, penalty=self.penalty, contrast_bars=CONTRAST_BARS, n_classes=n_classes, **options)
        yield "linear scores", fit(train, study.inputs, seed=self.seeds[0])(study.test)
        if not self.n_epochs:
            return
        x = study.inputs.of(study.test).x
        members = []
        for seed in self.seeds:
            members.append(answer_posterior(self._train(study, train, n_classes, options, seed), x))
            if seed == self.seeds[0]:
                yield "with encoder", members[0]
        if len(members) > 1:
            yield f"ensemble of {len(members)}", mean_posterior(members)

    def _train(self, study, train, n_classes, options, seed):
        """Return a localiser trained on the windows, the encoder's contribution included."""
        gather, train = lay_out(study.inputs, train)
        settings = FinetuneSettings(
            n_frozen_epochs=0,
            n_unfrozen_epochs=self.n_epochs,
            unfrozen_learning_rate=self.learning_rate,
            batch_size=self.batch_size,
            is_class_balanced=False,
            linear_penalty=self.penalty,
            seed=seed,
            n_threads=1,
        )
        torch.manual_seed(seed)
        model = build_model(
            "jade_compact",
            n_features=gather.n_features,
            n_classes=n_classes,
            heads=("segment",),
            hidden_size=self.hidden_size,
            start_range=(int(STARTS[0]), int(STARTS[-1])),
            **options,
        )
        finetune(model, gather, train, settings)
        return model


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
