"""Windows of bars: where they lie, how they are gathered, hidden, split and sampled."""

from moola_lib.windows.folds import (
    Fold,
    describe_folds,
    grouped_folds,
    last_days_fold,
    repeated_folds,
    reserve_last_days,
    reserved_fold,
    subset_folds,
)
from moola_lib.windows.forward_folds import forward_folds
from moola_lib.windows.places import LabelledWindows, place_labels, window_places
from moola_lib.windows.splits import Split, split_by_time, without_days

__all__ = [
    "Fold",
    "LabelledWindows",
    "Split",
    "describe_folds",
    "forward_folds",
    "grouped_folds",
    "last_days_fold",
    "place_labels",
    "repeated_folds",
    "reserve_last_days",
    "reserved_fold",
    "split_by_time",
    "subset_folds",
    "window_places",
    "without_days",
]
