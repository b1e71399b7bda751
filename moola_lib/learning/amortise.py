"""Pre-train a localiser on an endless stream of simulated labelled windows.

Every window is seen once, and every batch mixes markets whose laws differ, so
that what is learned is how to read a market from its own bars (amortised
inference: what an exact posterior would need for one known law is paid for
once, for all laws of the ranges).
"""

import math
import time
from dataclasses import asdict, dataclass, field

import torch

from moola_lib.errors import UserError
from moola_lib.learning.batches import check_features
from moola_lib.learning.device import seed_everything
from moola_lib.learning.epochs import train_epochs
from moola_lib.learning.losses import segment_loss
from moola_lib.market.random_laws import BROAD, LawRanges
from moola_lib.windows.samplers import epoch_batches
from moola_lib.windows.simulated import simulate_labelled

TRAINING, VALIDATION = 0, 1  # streams of one seed
N_SCALE = 512  # windows that the columns' mean and deviation are taken from
FIRST_WEIGHT = 0.01
BLOCK = 256  # windows at a time where no gradient is needed


@dataclass(frozen=True)
class AmortiseSettings:
    """How to pre-train on simulated labels.

    Attributes
    ----------
    n_epochs, windows_per_epoch : int
        Each epoch draws windows of its own.
    validation_windows : int
        Drawn once, of markets that are never trained on.
    batch_size : int
    learning_rate, final_learning_rate : float
        Linear warm-up to the first over `warmup_frac` of all steps, then a
        cosine to the second.
    warmup_frac, weight_decay, clip_norm : float
    ranges : LawRanges
    sessions_per_market : int
    checkpoint_every_steps : int
        Checkpoints within an epoch as well; 0 saves after each epoch only.
    seed : int
    n_threads : int or None
    """

    n_epochs: int = 6
    windows_per_epoch: int = 1600
    validation_windows: int = 1000
    batch_size: int = 32
    learning_rate: float = 3e-3
    final_learning_rate: float = 1e-4
    warmup_frac: float = 0.1
    weight_decay: float = 1e-4
    clip_norm: float = 1.0
    ranges: LawRanges = field(default=BROAD)
    sessions_per_market: int = 4
    checkpoint_every_steps: int = 0
    seed: int = 17
    n_threads: int | None = None


def amortise(model, feature_options, settings, *, device="cpu", checkpoints=None, resume=False, on_epoch=None):
    """Train a localiser on simulated windows: its encoder and its segment head. In one process.

    Parameters
    ----------
    model : Module with a `segment_head` and no other heads
        On the device. Left with the weights of its best epoch.
    feature_options : dict
        Of `build_features`; what the model will read later.
    settings : AmortiseSettings
    device : str or torch.device
    checkpoints : Checkpoints, optional
        Where to save after each epoch, at the steps the settings ask for, and
        when interrupted.
    resume : bool
        Continue from the latest checkpoint if there is one: on CPU the end is
        the same, to the bit, as without the interruption.
    on_epoch : callable(dict) -> bool or None, optional
        Called with each epoch's row, once it is saved; True ends the training there.

    Returns
    -------
    list of dict
        One row per epoch: `epoch`, `n_epochs`, `train_loss`, `validation_loss`
        (nats a window), `start_loss` (validation before training),
        `learning_rate`, `n_windows` seen so far, `windows_per_second` and
        `drawing_seconds`, which the simulator took of the epoch.

    Raises
    ------
    UserError
        The model has no segment head or also others, the features do not fit
        it, the loss becomes NaN, memory runs out, or a checkpoint cannot be written.
    KeyboardInterrupt
        SIGINT came; the step was finished and saved first.
    """
    if getattr(model, "tasks", ()) != ("segment",):
        raise UserError(
            f"{model.spec['name']} has the heads {', '.join(getattr(model, 'tasks', ())) or 'none'}; simulated windows "
            "train a segment posterior: build it with heads=['segment']"
        )
    seed_everything(settings.seed, settings.n_threads)
    validation = _Drawn(settings, VALIDATION, 0, settings.validation_windows, feature_options, device)
    check_features(validation.gather, model)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay, fused=True
    )
    if checkpoints is None or checkpoints.to_resume(resume) is None:
        _prepare_head(model, validation, settings.seed)
    drawing_seconds = {}

    def open_epoch(epoch):
        began = time.perf_counter()
        drawn = _Drawn(settings, TRAINING, epoch + 1, settings.windows_per_epoch, feature_options, device)
        drawing_seconds[epoch] = time.perf_counter() - began
        order = epoch_batches(settings.windows_per_epoch, settings.batch_size, seed=settings.seed, epoch=epoch)

        def losses(batch):
            loss = _loss(model, drawn.batch(order[batch]))
            return loss, loss, len(order[batch]), "simulated windows"

        return losses

    return train_epochs(
        model,
        optimizer,
        settings,
        open_epoch,
        lambda: _validate(model, validation),
        n_batches=math.ceil(settings.windows_per_epoch / settings.batch_size),
        figures=lambda epoch, _: {
            "n_windows": (epoch + 1) * settings.windows_per_epoch,
            "drawing_seconds": drawing_seconds[epoch],
        },
        checkpoints=checkpoints,
        resume=resume,
        on_epoch=on_epoch,
    )


def amortise_notes(settings, history):
    """Return what a card must say of a model that has seen simulated labels, plain JSON."""
    best = min(history, key=lambda row: row["validation_loss"])
    return {
        "kind": "amortised: trained on simulated labels",
        "n_windows": best["n_windows"],
        "validation_loss_nats": best["validation_loss"],
        "loss_before_training_nats": best["start_loss"],
        "settings": asdict(settings),
    }


class _Drawn:
    """The k-th windows of a stream of simulated ones, with their labels on the device."""

    def __init__(self, settings, stream, k, n_windows, feature_options, device):
        self.gather, windows = simulate_labelled(
            n_windows,
            [settings.seed, stream, k],
            ranges=settings.ranges,
            sessions_per_market=settings.sessions_per_market,
            device=device,
            **feature_options,
        )
        self.places = torch.as_tensor(windows.place)
        labels = {"spans": windows.spans, "type": windows.state, "has_expansion": windows.has_expansion}
        self.labels = {name: torch.as_tensor(value).to(device) for name, value in labels.items()}

    def __len__(self):
        return len(self.places)

    def batch(self, rows):
        """Return the batch of the given rows."""
        x, is_valid = self.gather(self.places[rows])
        return {"x": x, "is_valid": is_valid, **{name: value[rows] for name, value in self.labels.items()}}


def _prepare_head(model, windows, seed):
    """Set the segment head's scale, and start its linear scores off 0.

    At 0 the two directions are alike, and nothing would tell them apart. (A
    linear fit by L-BFGS instead costs as much as some ten thousand windows.)
    """
    head = model.segment_head
    head.set_scale(windows.batch(torch.arange(min(N_SCALE, len(windows))))["x"])
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in (head.start.weight, head.end.weight, head.inside.weight):
            weight.copy_(torch.randn(weight.shape, generator=generator) * FIRST_WEIGHT)


def _loss(model, batch):
    """Return the segment loss of a batch, in nats a window."""
    return segment_loss(model(batch["x"]), batch, first_start=model.segment_head.first_start)


@torch.no_grad()
def _validate(model, windows):
    """Return the mean loss over windows in eval mode, in nats."""
    model.eval()
    parts = torch.arange(len(windows)).split(BLOCK)
    return sum(float(_loss(model, windows.batch(rows))) * len(rows) for rows in parts) / len(windows)
