"""What each way to train makes of few labels, on simulated bars: `python -m benchmarks.label_efficiency`.

Writes `reports/LABEL_EFFICIENCY.md`. One market: its first sessions are labelled, the next are for pre-training, the
last, which nothing was trained on, are the test.
"""

import tempfile
from pathlib import Path

import numpy as np
import pandas as pd

SEED = 7401  # not looked at while the methods were chosen
SIZES = (20, 40, 80, 139)
N_DRAWS = 5
SESSIONS = {"labelled": 30, "unlabelled": 60, "test": 75}
STRENGTH, DRIFT = 2.0, 0.5
HIDDEN_SIZE = 64
N_EPOCHS = 12
FINE_TUNED = "pre-trained, fine-tuned"
RIVALS = ("random, fine-tuned", "random, frozen", "phase-shuffled, fine-tuned", "logistic regression")
PATH = Path(__file__).parents[1] / "reports" / "LABEL_EFFICIENCY.md"


def draw_market():
    """Return one market, its features, its planted windows, and which of them are for what."""
    from moola_lib.features import build_features
    from moola_lib.market import simulate_bars
    from moola_lib.windows import Fold
    from moola_lib.windows.gather import WindowGatherer
    from moola_lib.windows.simulated import planted_windows

    market = simulate_bars(sum(SESSIONS.values()), SEED, STRENGTH, DRIFT)
    table, windows = build_features(market.bars), planted_windows(market)
    _, session = np.unique(windows.day, return_inverse=True)
    labelled = np.flatnonzero(session < SESSIONS["labelled"])
    test = np.flatnonzero(session >= SESSIONS["labelled"] + SESSIONS["unlabelled"])
    return market, table, WindowGatherer(table), windows, Fold(labelled, test, 0)


def pretrain_encoders(table, windows, fold, folder):
    """Pre-train on the sessions between: on their bars, and on the same with their phases shuffled."""
    import torch

    from moola_lib.learning.pretrain import PretrainSettings, pretrain
    from moola_lib.models import build_model
    from moola_lib.models.weights import save_model
    from moola_lib.windows import window_places
    from moola_lib.windows.gather import WindowGatherer
    from moola_lib.windows.surrogates import shuffle_phases

    first, last = windows.place[fold.train].max() + 2000, windows.place[fold.test].min() - 2000
    places, _ = window_places(table.starts, len(table), stride=26)
    places = places[(places > first) & (places < last)]
    train, validation = places[: int(0.85 * len(places))], places[int(0.9 * len(places)) :]
    # as many window passes as the amortised arm has
    settings = PretrainSettings(
        n_epochs=8, windows_per_epoch=1200, batch_size=16, learning_rate=4e-3, mask="span", mask_ratio=0.3, n_threads=1
    )
    paths = {}
    for name, own in {"bars": table, "shuffled": shuffle_phases(table, SEED)}.items():
        torch.manual_seed(SEED)
        model = build_model(
            "masked_autoencoder", n_features=own.n_features, hidden_size=HIDDEN_SIZE, n_layers=1, dropout=0.0
        )
        pretrain(model, WindowGatherer(own), train, validation, settings)
        paths[name] = Path(folder) / f"{name}.safetensors"
        save_model(model, paths[name], features={"set_id": table.set_id, "names": table.names})
    return paths


def amortise_localiser(table, folder):
    """Pre-train a whole localiser on simulated labels of other laws."""
    import torch

    from moola_lib.learning.amortise import AmortiseSettings, amortise, amortise_notes
    from moola_lib.models import build_model
    from moola_lib.models.weights import save_model

    torch.manual_seed(SEED)
    settings = AmortiseSettings(seed=SEED, n_threads=1)
    model = build_model("jade_compact", n_features=table.n_features, **options(table), input_dropout=0, head_dropout=0)
    history = amortise(model, {}, settings)
    path = Path(folder) / "amortised.safetensors"
    features = {"set_id": table.set_id, "names": table.names}
    save_model(model, path, features=features, notes=amortise_notes(settings, history))
    return path


def options(table):
    """Return the options of every arm's model."""
    from moola_lib.features.sets import upside_down
    from moola_lib.labels.table import INNER_BARS

    return {
        "hidden_size": HIDDEN_SIZE,
        "heads": ("segment",),
        "start_range": tuple(INNER_BARS),
        "upside_down": upside_down(table.names),
    }


def build_arms(table, encoders, localiser):
    """Return the arms: all but the amortised one share their linear scores and differ in the encoder."""
    from moola_lib.evaluation.cross_validation import Arm
    from moola_lib.learning.finetune import FinetuneSettings
    from moola_lib.learning.linear_fit import NEAR

    common = {"batch_size": 16, "is_class_balanced": False, "n_threads": 1}
    rates = {"frozen_learning_rate": 3e-3, "unfrozen_learning_rate": 3e-3}
    frozen = FinetuneSettings(n_frozen_epochs=N_EPOCHS, n_unfrozen_epochs=0, **common, **rates)
    tuned = FinetuneSettings(n_frozen_epochs=3, n_unfrozen_epochs=N_EPOCHS - 3, **common, **rates)
    near = FinetuneSettings(n_frozen_epochs=0, n_unfrozen_epochs=0, linear_penalty=NEAR, **common)
    own = options(table)
    return [
        Arm(FINE_TUNED, "jade_compact", tuned, own, encoders["bars"]),
        Arm("pre-trained, frozen", "jade_compact", frozen, own, encoders["bars"]),
        Arm("random, frozen", "jade_compact", frozen, own),
        Arm("random, fine-tuned", "jade_compact", tuned, own),
        Arm("phase-shuffled, fine-tuned", "jade_compact", tuned, own, encoders["shuffled"]),
        Arm("amortised (has seen the law's kind)", "jade_compact", near, own, weights=localiser),
    ]


def measure(metrics=("hit3_start", "joint3")):
    """Return two frames: what each arm is worth by metric and number of labels, and the paired gains of FINE_TUNED."""
    from moola_lib.evaluation.fits import plan_fits, results_by_arm, run_fits
    from moola_lib.evaluation.inputs import collect_inputs
    from moola_lib.evaluation.label_efficiency import label_efficiency, label_gains
    from moola_lib.windows import subset_folds

    market, table, gather, windows, fold = draw_market()
    inputs = collect_inputs(windows, gather, market.bars.frame)
    subsets = subset_folds(fold, SIZES, n_draws=N_DRAWS, seed=SEED)
    features = {"set_id": table.set_id, "names": table.names}
    with tempfile.TemporaryDirectory() as folder:
        encoders, localiser = pretrain_encoders(table, windows, fold, folder), amortise_localiser(table, folder)
        fits = plan_fits(build_arms(table, encoders, localiser), [subset for _, subset in subsets], [SEED])
        found = results_by_arm(fits, run_fits(fits, gather, windows, features=features, validation_frac=0.0))
    results = {name: by_seed[SEED] for name, by_seed in found.items()}
    worth = [label_efficiency(windows, subsets, results, inputs, metric=each).assign(metric=each) for each in metrics]
    gains = [
        label_gains(windows, subsets, results, inputs, FINE_TUNED, RIVALS, metric=each).assign(metric=each)
        for each in metrics
    ]
    return pd.concat(worth), pd.concat(gains)


def write_page(path=PATH):
    """Run the study and write the page."""
    from moola_lib.files import write_text

    worth, gains = measure()
    tables = []
    for metric, title in (("hit3_start", "Start within 3 bars"), ("joint3", "Both edges within 3 bars")):
        tables.append(f"## {title}\n\n" + _table(worth[worth["metric"] == metric], "arm", _say_value))
        tables.append(f"{FINE_TUNED}, against:\n\n" + _table(gains[gains["metric"] == metric], "against", _say_gain))
    n_test = SESSIONS["test"] * 8
    text = f"""# What each way to train makes of few labels

Written by `python -m benchmarks.label_efficiency`; do not edit by hand. Simulated bars, r = {STRENGTH:g}, drift
{DRIFT:g}, seed {SEED}; {n_test} test windows of {SESSIONS["test"]} sessions that nothing was trained on. A figure is
the mean over {N_DRAWS} draws of that many labels; ± is half of its 95% interval (bootstrap of whole test sessions, for
these draws), and what follows the comma is the standard deviation between draws. Differences are paired: the same
draws, the same resampled sessions. All arms but the amortised one fit the same linear scores first; `jade_compact` of
{HIDDEN_SIZE} units, {N_EPOCHS} epochs. The amortised arm was trained on windows of the same generator with laws drawn
at random, as many window passes as the masked autoencoder had: it has seen the law's kind, and stands apart.

{chr(10).join(tables)}
"""
    write_text(path, text)
    return path


def _say_value(row):
    """Return an arm's figure with half its interval, and the spread of the draws."""
    return f"{row.value:.3f} ± {(row.high - row.low) / 2:.3f}, {row.sd_of_draws:.3f}"


def _say_gain(row):
    """Return a paired difference with its interval and verdict."""
    return f"{row.difference:+.3f} ({row.low:+.3f} to {row.high:+.3f}) {row.verdict}"


def _table(frame, by, say):
    """Return a Markdown table: a row each value of the column `by`, a column a number of labels."""
    lines = [["labels", *map(str, SIZES)], ["---"] * (len(SIZES) + 1)]
    for name, rows in frame.groupby(by, sort=False):
        rows = rows.set_index("n_labels").loc[list(SIZES)]
        lines.append([name, *map(say, rows.itertuples())])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


if __name__ == "__main__":
    print(write_page())
