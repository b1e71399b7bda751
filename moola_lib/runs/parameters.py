"""The notebooks' parameters: names, types, ranges, units and quick defaults, in one place.

The defaults are the quick scale: simulated bars, two CPU cores, about a minute
a notebook. Each notebook's parameters cell repeats them (a test compares), and
`params/<profile>/<stem>.yaml` holds only what differs.
"""

from datetime import date
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from moola_lib.features.sets import FEATURE_SETS
from moola_lib.learning import STRATEGIES
from moola_lib.models import LOCALISERS

PARAMETERS = {
    "01_feature_validation": "moola_lib.runs.parameters:FeatureValidation",
    "02_label_generation": "moola_lib.runs.parameters:LabelGeneration",
    "03_pretraining": "moola_lib.runs.parameters:Pretraining",
    "04_fine_tuning": "moola_lib.runs.parameters:FineTuning",
    "05_loss_balance": "moola_lib.runs.parameters:LossBalance",
}

IS_PATH = {"path": True}  # relative paths count from the caller's folder
Text = Annotated[str, Field(min_length=1)]

FeatureSetName = Literal[tuple(FEATURE_SETS)]
StrategyName = Literal[tuple(STRATEGIES)]
# the notes' own, and one of each kind of the others
QUICK_STRATEGIES = [
    "fixed",
    "manual",
    "initial",
    "ema",
    "uncertainty",
    "uncertainty_bounded",
    "log",
    "famo",
    "aligned_mtl",
    "upgrad",
]
LocaliserName = Literal[LOCALISERS]
Fraction = Annotated[float, Field(ge=0, le=1)]
Rate = Annotated[float, Field(gt=0, le=1)]
Bar = Annotated[int, Field(ge=0, le=104)]  # of a window of 105
StartRange = tuple[Bar, Bar]


class NotebookParameters(BaseModel):
    """What every notebook has."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    seed: int = Field(17, ge=0, description="random seed; equal seeds give equal numbers on CPU")
    upstream_run: Text | None = Field(None, description="run id to take inputs from; null: the newest finished one")


class Compute(BaseModel):
    """Where to train."""

    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="auto takes a GPU where there is one")
    n_threads: int = Field(1, ge=1, le=128, description="CPU threads; more help only large batches on a quiet machine")


class FeatureValidation(NotebookParameters):
    """01: can these bars and features be trusted?"""

    bars: Text | None = Field(
        None, description="parquet or CSV with one-minute bars; null: simulate", json_schema_extra=IS_PATH
    )
    tz: Text | None = Field(None, description="zone of naive stamps, for example America/Chicago")
    stamp: Literal["start", "end"] | None = Field(None, description="what the stamps mark; null: start")
    symbol: Text | None = Field(None, description="which symbol to read, where the file holds several or none")
    scale: float = Field(
        1.0, gt=0, le=1e6, description="factor for prices that are not index-sized, e.g. 10000 for a pair"
    )
    drop_budget: float = Field(0.005, ge=0, le=0.5, description="share of rows that may be dropped (fraction)")
    back_adjust: bool = Field(False, description="scale earlier contracts, so that prices are continuous at rolls")
    max_gap_minutes: float = Field(5.0, ge=1, le=60, description="longest gap inside a segment (minutes)")
    n_sessions: int = Field(60, ge=2, le=5000, description="simulated sessions (1,380 bars each)")
    strength: float = Field(2.0, ge=1, le=10, description="simulated volatility ratio inside an expansion")
    drift: float = Field(0.5, ge=0, le=3, description="simulated drift inside (volatilities per bar)")
    feature_set: FeatureSetName = Field("relativity11", description="columns of the feature table")
    zigzag: Literal["primary", "legacy"] = Field("primary", description="swing rule of relativity11")
    zigzag_k: float = Field(3.0, gt=0, le=20, description="retracement that confirms a swing (ATRs)")
    extra_columns: list[Literal["consol_proxy", "position"]] = Field(
        [], description="further columns; position is a leak in waiting, see the notebook"
    )
    n_checks: int = Field(20, ge=2, le=1000, description="random bars at which causality is checked")


class LabelGeneration(NotebookParameters):
    """02: what exactly is an expansion here, and how good are our labels?"""

    labels: Text | None = Field(
        None,
        description="parquet, CSV or Label Studio JSON; null: planted labels, or proposals on real bars",
        json_schema_extra=IS_PATH,
    )
    predictions: Text | None = Field(
        None,
        description="predictions.npz of a run of 04, to rank suspicious labels; null: leave it out",
        json_schema_extra=IS_PATH,
    )
    n_labels: int = Field(174, ge=10, le=100_000, description="windows to label where no table is given")
    label_sessions: int = Field(30, ge=1, le=5000, description="last sessions that labels are drawn from")
    min_move_atr: float = Field(3.0, gt=0, le=50, description="net move of a proposed surge (ATRs)")
    min_efficiency: float = Field(0.6, gt=0, le=1, description="net move over path travelled")
    min_bars: int = Field(5, ge=2, le=104, description="shortest proposed surge (bars)")
    max_bars: int = Field(30, ge=2, le=104, description="longest proposed surge (bars)")
    min_counter_atr: float = Field(1.0, ge=0, le=50, description="counter-move that makes a retracement (ATRs)")
    max_compression: float = Field(1.0, ge=0, le=10, description="range over the usual one, of a consolidation")
    n_bootstrap: int = Field(1000, ge=100, le=100_000, description="resamples of days for intervals")

    @model_validator(mode="after")
    def _check_lengths(self):
        if self.min_bars > self.max_bars:
            raise ValueError(f"min_bars {self.min_bars} is above max_bars {self.max_bars}")
        return self


class Pretraining(NotebookParameters, Compute):
    """03: does the encoder learn more than interpolation would give?"""

    n_ranks: int = Field(
        1, ge=1, le=64, description="processes that share every batch, one GPU each (torchrun); 1: the notebook's"
    )
    hidden_size: int = Field(64, ge=4, le=1024, description="LSTM units per direction")
    n_layers: int = Field(2, ge=1, le=8, description="LSTM layers")
    dropout: float = Field(0.2, ge=0, lt=1, description="between LSTM layers")
    stride_bars: int = Field(26, ge=1, le=105, description="step between training windows (bars)")
    max_samples: int | None = Field(None, ge=8, description="most windows to use; null: all")
    is_away_from_labels: bool = Field(True, description="leave out labelled days and their neighbours")
    windows_per_epoch: int | None = Field(None, ge=8, description="windows drawn for each epoch; null: all")
    epoch_stride: int = Field(
        1, ge=1, le=105, description="each epoch takes one window in so many, from an offset drawn for it"
    )
    n_epochs: int = Field(24, ge=1, le=1000, description="epochs of the masked autoencoder")
    batch_size: int = Field(16, ge=1, le=65_536, description="windows per step, of all ranks together")
    learning_rate: Rate = Field(4e-3, description="peak rate, after warm-up")
    final_learning_rate: Rate = Field(1e-4, description="rate of the last step")
    warmup_frac: Fraction = Field(0.25, description="share of steps with a rising rate")
    weight_decay: float = Field(1e-2, ge=0, le=1, description="AdamW")
    clip_norm: float = Field(1.0, gt=0, description="largest gradient norm")
    mask: Literal["single", "span"] = Field("span", description="hide single bars, or runs of them")
    mask_ratio: float = Field(0.3, gt=0, lt=1, description="share of bars hidden")
    mask_span_bars: float = Field(10.0, ge=1, le=60, description="mean length of a hidden run (bars)")
    hide_input: bool = Field(
        True, description="false: the deliberate leak (the encoder sees what it is to reconstruct); never exported"
    )
    jitter: float = Field(0.03, ge=0, le=1, description="noise on training inputs (sd, feature units)")
    patience_epochs: int = Field(10, ge=1, description="epochs without improvement before stopping")
    precision: Literal["fp32", "bf16"] = Field("fp32", description="of training steps; bf16 where the hardware has it")
    gradient_checkpointing: bool = Field(False, description="less memory for longer steps, the same numbers")
    checkpoint_every_steps: int = Field(0, ge=0, description="checkpoints within an epoch; 0: after each epoch only")
    n_control_epochs: int = Field(10, ge=1, le=1000, description="epochs of the control that is shown the hidden bars")
    n_multitask_epochs: int = Field(8, ge=1, le=1000, description="epochs of the multitask pre-trainer")
    multitask_batch_size: int = Field(16, ge=1, le=65_536, description="its windows per step")
    start_range: StartRange = Field((30, 74), description="bars of a window at which an expansion may start")
    n_shuffled_epochs: int = Field(0, ge=0, le=1000, description="of a control on phase-shuffled bars; 0: none")
    n_amortised_epochs: int = Field(3, ge=0, le=1000, description="of a localiser on simulated labels; 0: none")
    amortised_windows_per_epoch: int = Field(1600, ge=32, description="simulated windows of each of its epochs")
    split_fractions: tuple[float, float, float] = Field(
        (0.70, 0.15, 0.15), description="train, validation, test by time"
    )
    split_dates: tuple[str, str] | None = Field(None, description="last day of train and of validation, instead")
    embargo_bars: int = Field(105, ge=105, le=100_000, description="bars left out between parts")
    top_k: int = Field(2, ge=1, le=100, description="best checkpoints kept")

    @model_validator(mode="after")
    def _check_split(self):
        if min(self.split_fractions) <= 0 or abs(sum(self.split_fractions) - 1) > 1e-6:
            raise ValueError(f"split_fractions {self.split_fractions} must be positive and sum to 1")
        if self.split_dates is not None:
            try:
                days = [date.fromisoformat(day) for day in self.split_dates]
            except ValueError as error:
                raise ValueError(f"split_dates {self.split_dates} must be days like 2024-12-31 ({error})") from error
            if days[0] >= days[1]:
                raise ValueError(f"split_dates {self.split_dates} must be in order")
        if self.mask == "span" and self.mask_ratio > self.mask_span_bars / (self.mask_span_bars + 1):
            raise ValueError(f"spans of {self.mask_span_bars:g} bars cannot hide {self.mask_ratio:.0%} of all bars")
        return self


class FineTuning(NotebookParameters, Compute):
    """04: does it find expansions better than every simple baseline, and does pre-training help?"""

    model: LocaliserName = Field("jade", description="the model that takes the pre-trained encoder")
    heads: Literal["segment", "notes", "both"] = Field(
        "segment", description="a posterior over spans, the notes' four heads, or both"
    )
    dropout: float = Field(0.2, ge=0, lt=1, description="between LSTM layers")
    head_dropout: float = Field(0.2, ge=0, lt=1, description="before the heads")
    n_folds: int = Field(5, ge=2, le=50, description="cross-validation folds, whole trading days each")
    n_repeats: int = Field(1, ge=1, le=100, description="times that folds are cut, their borders shifted")
    n_seeds: int = Field(1, ge=1, le=100, description="seeds of each arm; several are averaged in the ensemble")
    reserved_frac: float = Field(0.2, ge=0, le=0.5, description="last labelled days that folds leave untouched")
    exam: bool = Field(False, description="the final figures: train on all days but the reserved, test on those")
    max_samples: int | None = Field(None, ge=20, description="most labelled windows to use; null: all")
    n_frozen_epochs: int = Field(2, ge=0, le=1000, description="phase 1: encoder frozen")
    n_unfrozen_epochs: int = Field(4, ge=0, le=1000, description="phase 2: all parameters")
    n_pointer_epochs: int = Field(0, ge=0, le=1000, description="first epochs on the pointers alone")
    frozen_learning_rate: Rate = Field(3e-3, description="phase 1")
    unfrozen_learning_rate: Rate = Field(2e-3, description="phase 2")
    encoder_rate_factor: float = Field(1.0, gt=0, le=1, description="of the encoder's rate in phase 2")
    n_permutations: int = Field(9, ge=0, le=9999, description="labels moved between days, with refit; 0: none")
    batch_size: int = Field(16, ge=1, le=65_536, description="windows per step")
    weight_decay: float = Field(1e-4, ge=0, le=1, description="AdamW")
    balance: StrategyName = Field("manual", description="how the losses of the notes' heads are combined")
    focal_gamma: float = Field(0.0, ge=0, le=10, description="focal loss of the state; 0: cross-entropy")
    is_class_balanced: bool = Field(False, description="draw windows with weight 1 / class count")
    time_warp_probability: Fraction = Field(0.0, description="off by default")
    validation_frac: float = Field(0.15, ge=0, le=0.5, description="of a training fold, to choose the epoch")
    decoder: Literal["segment", "inside", "pointers", "countdown"] = Field(
        "segment", description="what spans are read from"
    )
    n_lstm_epochs: int = Field(3, ge=0, le=1000, description="of simple_lstm, a baseline of record; 0: leave it out")
    start_range: StartRange = Field((30, 74), description="bars of a window at which an expansion may start")
    label_sizes: list[Annotated[int, Field(ge=4)]] = Field(
        [20, 40, 80], description="numbers of labels for the learning curve"
    )
    n_label_draws: int = Field(1, ge=1, le=100, description="random draws of each number of labels")
    transfer: list[str] = Field([], description="files of other bars to be watched", json_schema_extra=IS_PATH)
    n_ordinary_windows: int = Field(300, ge=13, le=1_000_000, description="last windows of unlabelled sessions to scan")
    causal_stride_bars: int = Field(7, ge=1, le=35, description="bars between two answers in the causal section")
    n_causal_folds: int = Field(1, ge=1, le=50, description="last folds that the causal section is made of")
    n_skill_windows: int = Field(2000, ge=100, le=100_000, description="test windows of the bare law")
    n_workers: int | None = Field(None, ge=1, le=256, description="processes for the fits; null: one per core")
    n_bootstrap: int = Field(500, ge=100, le=100_000, description="resamples of days for intervals")

    @model_validator(mode="after")
    def _check_decoder(self):
        if self.decoder == "segment" and self.heads == "notes":
            raise ValueError(
                "decoder segment needs the segment head; set heads to segment or both, or decoder to inside"
            )
        if self.exam and self.reserved_frac == 0:
            raise ValueError("exam tests on the reserved days, and reserved_frac 0 reserves none")
        return self


class LossBalance(NotebookParameters, Compute):
    """05: does every task get to teach the encoder?"""

    strategies: list[StrategyName] = Field(QUICK_STRATEGIES, min_length=1, description="strategies to compare")
    model: LocaliserName = Field("jade", description="the model that takes the pre-trained encoder")
    in_use: StrategyName = Field("manual", description="the strategy that the gates judge")
    dropout: float = Field(0.2, ge=0, lt=1, description="between LSTM layers")
    head_dropout: float = Field(0.2, ge=0, lt=1, description="before the heads")
    max_samples: int | None = Field(None, ge=20, description="most labelled windows to use; null: all")
    n_epochs: int = Field(10, ge=1, le=1000, description="epochs of every fit, encoder unfrozen")
    batch_size: int = Field(8, ge=1, le=65_536, description="windows per step")
    learning_rates: list[Rate] = Field([1e-3, 4e-3], min_length=1, description="each strategy takes the best of these")
    sigma_rate_factor: float = Field(1.0, gt=0, le=1000, description="rate of log sigma, relative")
    pointer_weights: list[Annotated[float, Field(gt=0)]] = Field(
        [0.01, 0.1, 1.0, 10.0, 100.0], min_length=1, description="of the pointers in the sweep, beside manual's others"
    )
    audit_every: int = Field(4, ge=1, description="steps between measurements of gradients")
    on_silenced: Literal["ignore", "warn", "stop"] = Field("warn", description="name silenced tasks, or stop")
    validation_frac: float = Field(0.2, gt=0, le=0.5, description="latest training days, to choose rate and epoch")
    n_folds: int = Field(1, ge=1, le=50, description="blocks of days to score on; 1: the latest days only")
    test_frac: float = Field(0.25, gt=0, lt=1, description="those latest days, where n_folds is 1")
    n_workers: int | None = Field(None, ge=1, le=256, description="processes for the fits; null: one per core")
    n_bootstrap: int = Field(500, ge=100, le=100_000, description="resamples of days for intervals")

    @model_validator(mode="after")
    def _check_in_use(self):
        if self.in_use not in self.strategies:
            raise ValueError(f"in_use {self.in_use!r} is not among strategies {self.strategies}")
        return self
