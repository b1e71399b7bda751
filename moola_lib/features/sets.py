"""The feature sets: names, ranges and versions, in one place."""

from dataclasses import dataclass

WARM_UP_BARS = 20  # a segment's first rows, not valid in any set
INF = float("inf")


@dataclass(frozen=True)
class FeatureSet:
    """What a column means.

    Attributes
    ----------
    name : str
    version : int
        Raised whenever a value changes; stored in every checkpoint.
    columns : tuple of str
    ranges : tuple of (float, float)
        Lower and upper clip of each column.
    """

    name: str
    version: int
    columns: tuple
    ranges: tuple


FEATURE_SETS = {
    "relativity11": FeatureSet(
        "relativity11",
        1,
        (
            "open_norm",
            "close_norm",
            "body_pct",
            "upper_wick_pct",
            "lower_wick_pct",
            "range_z",
            "dist_to_prev_SH",
            "dist_to_prev_SL",
            "bars_since_SH_norm",
            "bars_since_SL_norm",
            "expansion_proxy",
        ),
        ((0, 1), (0, 1), (-1, 1), (0, 1), (0, 1), (0, 3), (-3, 3), (-3, 3), (0, 3), (0, 3), (-2, 2)),
    ),
    "relative_transform11": FeatureSet(
        "relative_transform11",
        1,
        (
            "log_return_open",
            "log_return_high",
            "log_return_low",
            "log_return_close",
            "body_ratio",
            "upper_wick_ratio",
            "lower_wick_ratio",
            "zscore_open",
            "zscore_high",
            "zscore_low",
            "zscore_close",
        ),
        (*[(-INF, INF)] * 4, *[(0, 1)] * 3, *[(-10, 10)] * 4),
    ),
    "ohlc4": FeatureSet("ohlc4", 1, ("open", "high", "low", "close"), ((0, INF),) * 4),
}

# Columns that may be added to any of the sets above. `position` depends on the
# window, so it is appended when windows are gathered.
EXTRA_COLUMNS = {"consol_proxy": (0, 3), "position": (0, 1)}
