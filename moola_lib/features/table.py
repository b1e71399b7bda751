"""The feature table: every bar featurised once, windows are views of it."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from moola_lib.errors import UserError
from moola_lib.features import kernels
from moola_lib.features.sets import EXTRA_COLUMNS, FEATURE_SETS, WARM_UP_BARS
from moola_lib.files import read_json, replace_atomically, write_json
from moola_lib.market.bars import PRICES, Bars
from moola_lib.market.segments import segment_starts

ZIGZAGS = {"primary": kernels.PRIMARY, "legacy": kernels.LEGACY}


@dataclass(frozen=True)
class FeatureTable:
    """Features of every bar of one series.

    Attributes
    ----------
    values : ndarray (n_bars, n_features), float32
        Finite everywhere.
    is_valid : ndarray (n_bars,), bool
        False for each segment's first 20 rows. They enter a model as 0 and are
        left out of every loss and metric.
    starts : ndarray (n_segments,), int64
        First bar of each segment.
    names : tuple of str
        Column names. `position` is not a column: it is appended to windows.
    ranges : ndarray (n_features, 2), float64
        Clip of each column.
    set_id : str
        Names everything that decides a value: set, version, zigzag, k, extras.
    version : int
    is_flip : ndarray (n_bars,), bool
        True where a swing is confirmed (all False for sets without a zigzag).
    options : dict
        Arguments of `build_features` that make the same set from other bars.
    """

    values: np.ndarray
    is_valid: np.ndarray
    starts: np.ndarray
    names: tuple
    ranges: np.ndarray
    set_id: str
    version: int
    is_flip: np.ndarray
    options: dict

    def __len__(self):
        return len(self.values)

    @property
    def n_features(self):
        """Columns of the table."""
        return self.values.shape[1]

    @property
    def has_position(self):
        """True where `position` is to be appended to windows."""
        return "position" in self.options["extra"]

    def save(self, folder, *, bars_fingerprint):
        """Write `values.npy`, `is_valid.npy`, `starts.npy`, `is_flip.npy` and `metadata.json`."""
        folder = Path(folder)
        for name in ("values", "is_valid", "starts", "is_flip"):
            with replace_atomically(folder / f"{name}.npy") as path, open(path, "wb") as stream:
                np.save(stream, getattr(self, name))
        write_json(
            folder / "metadata.json",
            {
                "set_id": self.set_id,
                "version": self.version,
                "names": self.names,
                "ranges": [[str(low), str(high)] for low, high in self.ranges],
                "n_bars": len(self),
                "options": self.options,
                "bars_fingerprint": bars_fingerprint,
            },
        )

    @classmethod
    def load(cls, folder, *, bars_fingerprint=None):
        """Read a saved table, its values memory-mapped.

        Raises
        ------
        UserError
            A file is missing, or the table was made from other bars.
        """
        folder = Path(folder)
        card = read_json(folder / "metadata.json")
        if bars_fingerprint is not None and card["bars_fingerprint"] != bars_fingerprint:
            raise UserError(
                f"{folder} was made from bars {card['bars_fingerprint']}, not from these ({bars_fingerprint}); "
                "build the features again"
            )
        arrays = {}
        for name in ("values", "is_valid", "starts", "is_flip"):
            try:
                arrays[name] = np.load(folder / f"{name}.npy", mmap_mode="r" if name == "values" else None)
            except (OSError, ValueError) as error:
                raise UserError(f"{folder / name}.npy cannot be read ({error}); build the features again") from error
        ranges = np.array(card["ranges"], dtype=np.float64)
        return cls(
            **arrays,
            names=tuple(card["names"]),
            ranges=ranges,
            set_id=card["set_id"],
            version=card["version"],
            options=card["options"],
        )


def build_features(bars, feature_set="relativity11", zigzag="primary", *, k=3.0, extra=(), max_gap_minutes=5.0):
    """Compute a feature set for every bar in one compiled pass.

    Parameters
    ----------
    bars : Bars or DataFrame
        Indexed by UTC `ts`, float64 prices in points.
    feature_set : str
        A key of FEATURE_SETS.
    zigzag : {"primary", "legacy"}
        Swing rule of `relativity11`. `legacy` flips on nearly every bar and is
        kept for parity with old checkpoints.
    k : float
        Retracement, in ATRs, that confirms a primary swing.
    extra : sequence of str
        Further columns; `consol_proxy` goes with `relativity11` only, and
        `position` is appended when windows are gathered.
    max_gap_minutes : float
        Longest gap inside a segment.

    Returns
    -------
    FeatureTable

    Raises
    ------
    UserError
        The set, rule or extra column is unknown, or prices are not finite.
    """
    if feature_set not in FEATURE_SETS:
        raise UserError(f"feature set {feature_set!r} is not known; choose one of {', '.join(FEATURE_SETS)}")
    if zigzag not in ZIGZAGS:
        raise UserError(f"zigzag {zigzag!r} is not known; choose one of {', '.join(ZIGZAGS)}")
    unknown = [name for name in extra if name not in EXTRA_COLUMNS]
    if unknown:
        raise UserError(f"extra column {unknown[0]!r} is not known; choose from {', '.join(EXTRA_COLUMNS)}")
    with_consol = "consol_proxy" in extra
    if with_consol and feature_set != "relativity11":
        raise UserError(f"consol_proxy is made from relativity11's columns; it does not go with {feature_set}")

    frame = bars.frame if isinstance(bars, Bars) else bars
    prices = [np.ascontiguousarray(frame[name].to_numpy(np.float64)) for name in PRICES]
    if not all(np.isfinite(series).all() for series in prices):
        raise UserError("a price is missing or infinite; load the bars with load_bars, which drops such rows")
    starts = segment_starts(frame, max_gap_minutes=max_gap_minutes)
    spec = FEATURE_SETS[feature_set]
    values = np.empty((len(frame), len(spec.columns) + with_consol), np.float32)
    is_flip = np.zeros(len(frame), bool)
    set_id = f"{spec.name}.v{spec.version}"
    if feature_set == "relativity11":
        set_id += f"/{zigzag}" + (f"/k={k:g}" if zigzag == "primary" else "")
        kernels.relativity11(*prices, starts, ZIGZAGS[zigzag], float(k), with_consol, values, is_flip)
    elif feature_set == "relative_transform11":
        kernels.relative_transform11(*prices, starts, values)
    else:
        np.stack(prices, axis=1, out=values, casting="same_kind")
    columns = [name for name in extra if name != "position"]
    return FeatureTable(
        values=values,
        is_valid=_warmed_up(starts, len(frame)),
        starts=starts,
        names=(*spec.columns, *columns),
        ranges=np.array([*spec.ranges, *(EXTRA_COLUMNS[name] for name in columns)], np.float64),
        set_id=set_id + "".join(f"+{name}" for name in extra),
        version=spec.version,
        is_flip=is_flip,
        options={
            "feature_set": feature_set,
            "zigzag": zigzag,
            "k": float(k),
            "extra": list(extra),
            "max_gap_minutes": float(max_gap_minutes),
        },
    )


def _warmed_up(starts, n_bars):
    """Tell which bars lie past the first 20 of their segment, (n_bars,) bool."""
    is_valid = np.ones(n_bars, bool)
    for first in starts:  # past the end of a short segment lie first rows of the next
        is_valid[first : first + WARM_UP_BARS] = False
    return is_valid
