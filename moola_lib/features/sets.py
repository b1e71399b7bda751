"""The feature sets: names, ranges and versions, in one place."""

from dataclasses import dataclass
from numbers import Real

import numpy as np

from moola_lib.errors import UserError

WARM_UP_BARS = 20  # a segment's first rows, not valid in any set
MAX_GAP_MINUTES = 7 * 24 * 60  # nothing trades on across a week
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
    upside_down : dict of str to (str, int, int), or None
        For a market turned upside down (every price p as 1 / p): each column
        that changes becomes sign * another column + offset. None: the set has
        no such reading.
    """

    name: str
    version: int
    columns: tuple
    ranges: tuple
    upside_down: dict | None = None


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
        {
            "open_norm": ("open_norm", -1, 1),
            "close_norm": ("close_norm", -1, 1),
            "body_pct": ("body_pct", -1, 0),
            "upper_wick_pct": ("lower_wick_pct", 1, 0),
            "lower_wick_pct": ("upper_wick_pct", 1, 0),
            "dist_to_prev_SH": ("dist_to_prev_SL", 1, 0),
            "dist_to_prev_SL": ("dist_to_prev_SH", 1, 0),
            "bars_since_SH_norm": ("bars_since_SL_norm", 1, 0),
            "bars_since_SL_norm": ("bars_since_SH_norm", 1, 0),
        },
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
        {
            "log_return_open": ("log_return_open", -1, 0),
            "log_return_high": ("log_return_low", -1, 0),
            "log_return_low": ("log_return_high", -1, 0),
            "log_return_close": ("log_return_close", -1, 0),
            "upper_wick_ratio": ("lower_wick_ratio", 1, 0),
            "lower_wick_ratio": ("upper_wick_ratio", 1, 0),
            "zscore_open": ("zscore_open", -1, 0),
            "zscore_high": ("zscore_low", -1, 0),
            "zscore_low": ("zscore_high", -1, 0),
            "zscore_close": ("zscore_close", -1, 0),
        },
    ),
    "ohlc4": FeatureSet("ohlc4", 1, ("open", "high", "low", "close"), ((0, INF),) * 4),
}

# What the simulator's bare law is seen as: it draws these two numbers and no bars.
BARE2 = FeatureSet(
    "bare2",
    1,
    ("log_return", "log_range"),
    ((-INF, INF),) * 2,
    {"log_return": ("log_return", -1, 0)},
)

# Columns that may be added to any of the sets above. `position` depends on the
# window, so it is appended when windows are gathered.
EXTRA_COLUMNS = {"consol_proxy": (0, 3), "position": (0, 1)}
ZIGZAGS = ("primary", "legacy")


def upside_down(names):
    """Return how the columns of a set change when the market is turned upside down.

    Parameters
    ----------
    names : sequence of str
        Columns in their order, extra ones included (they do not change).

    Returns
    -------
    list of [int, float, float], or None
        For each column: which column it is read from, the sign and the offset;
        None where the set has no such reading (raw prices).
    """
    names = list(names)
    for spec in (*FEATURE_SETS.values(), BARE2):
        if set(spec.columns) <= set(names) and spec.upside_down is not None:
            changes = [spec.upside_down.get(name, (name, 1, 0)) for name in names]
            return [[names.index(source), float(sign), float(offset)] for source, sign, offset in changes]
    return None


def describe_set(feature_set="relativity11", zigzag="primary", k=3.0, extra=(), max_gap_minutes=5.0):
    """Check the options of a feature set; return what a table made with them holds.

    Parameters
    ----------
    feature_set, zigzag, k, extra, max_gap_minutes
        As for `build_features`.

    Returns
    -------
    dict
        `names` (tuple of str), `ranges` (n_features, 2) float64, `set_id`,
        `version` and `options`, as in FeatureTable.

    Raises
    ------
    UserError
        The set, rule or extra column is unknown, k is not a positive number, or
        the gap is none or longer than a week.
    """
    if feature_set not in FEATURE_SETS:
        raise UserError(f"feature set {feature_set!r} is not known; choose one of {', '.join(FEATURE_SETS)}")
    if zigzag not in ZIGZAGS:
        raise UserError(f"zigzag {zigzag!r} is not known; choose one of {', '.join(ZIGZAGS)}")
    if isinstance(extra, str):
        raise UserError(f"extra = {extra!r} is a single name; give a list of names")
    unknown = [name for name in extra if name not in EXTRA_COLUMNS]
    if unknown:
        raise UserError(f"extra column {unknown[0]!r} is not known; choose from {', '.join(EXTRA_COLUMNS)}")
    if "consol_proxy" in extra and feature_set != "relativity11":
        raise UserError(f"consol_proxy is made from relativity11's columns; it does not go with {feature_set}")
    for name, value in (("k", k), ("max_gap_minutes", max_gap_minutes)):
        if not isinstance(value, Real):
            raise UserError(f"{name} = {value!r} is not a number; give one")
    if not 0 < k < INF:
        raise UserError(f"k = {k} is not allowed; give a number above 0")
    if not 0 < max_gap_minutes <= MAX_GAP_MINUTES:
        raise UserError(
            f"max_gap_minutes = {max_gap_minutes} is not allowed; give a number above 0 and at most {MAX_GAP_MINUTES:,}"
            " (a week)"
        )
    spec = FEATURE_SETS[feature_set]
    columns = [name for name in extra if name != "position"]
    set_id = f"{spec.name}.v{spec.version}"
    if feature_set == "relativity11":
        set_id += f"/{zigzag}" + (f"/k={k:g}" if zigzag == "primary" else "")
    return {
        "names": (*spec.columns, *columns),
        "ranges": np.array([*spec.ranges, *(EXTRA_COLUMNS[name] for name in columns)], np.float64),
        "set_id": set_id + "".join(f"+{name}" for name in extra),
        "version": spec.version,
        "options": {
            "feature_set": feature_set,
            "zigzag": zigzag,
            "k": float(k),
            "extra": list(extra),
            "max_gap_minutes": float(max_gap_minutes),
        },
    }
