"""The linear segment model: the baseline that is nearly optimal where scores add up."""

from dataclasses import replace

import numpy as np
import torch

from moola_lib.evaluation.baselines import majority_baseline
from moola_lib.evaluation.oracle import Posterior
from moola_lib.evaluation.spans import STARTS, answer_spans, inside_threshold, known_spans
from moola_lib.learning.linear_fit import PLAIN, fit_linear
from moola_lib.learning.outputs import read_posterior
from moola_lib.models.segments import LinearSegments

BLOCK = 256  # windows at a time
WANTED = ("type_probability", "log_odds")


def linear_segment_baseline(train, test, inputs):
    """Answer by a posterior whose scores are linear in the features of the bars within five of an edge.

    Start, end and inside scores and a length table add up; a softmax runs over
    all spans that start in the inner part. The state is the majority's.

    Parameters
    ----------
    train, test : LabelledWindows
    inputs : WindowInputs

    Returns
    -------
    Prediction

    Raises
    ------
    UserError
        No training window holds an expansion that starts in the inner part.
    """
    posterior = fit_segments(train, inputs)
    return answer_spans(posterior(test), inside_threshold(posterior(train), train))


def fit_segments(train, inputs, *, penalty=PLAIN, n_classes=1, seed=17, **options):
    """Fit a linear segment model by L-BFGS; return what answers windows by a Posterior.

    Parameters
    ----------
    train : LabelledWindows
        Expansions that start outside the inner part are left out.
    inputs : WindowInputs
    penalty : LinearPenalty
    n_classes : int
        2 tells the states before apart; with 1 the answer is the majority's.
    seed : int
    **options
        Of `LinearSegments`; by default the plain model.

    Returns
    -------
    callable(LabelledWindows) -> oracle.Posterior
    """
    known = _inner_spans(train)
    model = LinearSegments(inputs.x.shape[2], n_classes, start_range=(int(STARTS[0]), int(STARTS[-1])), **options)
    batch = {
        "x": torch.from_numpy(inputs.of(known).x),
        "spans": torch.from_numpy(known.spans),
        "type": torch.from_numpy(known.state),
        "has_expansion": torch.ones(len(known), dtype=torch.bool),
    }
    fit_linear(model.segment_head, batch, penalty, seed=seed)

    def posterior(windows):
        found = answer_posterior(model, inputs.of(windows).x)
        return found if n_classes > 1 else replace(found, state=majority_baseline(train, windows).type_probability)

    return posterior


@torch.no_grad()
def answer_posterior(model, x):
    """Return a model's posterior over spans that start in the inner part.

    Parameters
    ----------
    model : Module
        With a segment head; set to eval mode.
    x : ndarray (n, K, F), float32

    Returns
    -------
    oracle.Posterior
        Given that there is an expansion; `state` only where the model tells states apart.
    """
    model.eval()
    first = model.segment_head.first_start
    parts = [read_posterior(model(block), first) for block in torch.from_numpy(x).split(BLOCK)]
    span = torch.cat([part["span_probability"][:, STARTS[0] : STARTS[-1] + 1] for part in parts]).double().numpy()
    found = {name: torch.cat([part[name] for part in parts]).numpy() for name in parts[0] if name in WANTED}
    return Posterior(span, found.get("type_probability"), STARTS, found["log_odds"])


def _inner_spans(train):
    """Return windows with an expansion that starts in the inner part, their other spans taken out."""
    is_inner = np.isin(train.spans[..., 0], STARTS)
    inner = replace(train, has_expansion=is_inner.any(axis=1), spans=np.where(is_inner[..., None], train.spans, -1))
    return known_spans(inner)
