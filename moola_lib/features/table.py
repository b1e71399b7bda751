"""The feature table: every bar featurised once, windows are views of it."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from moola_lib.errors import UserError
from moola_lib.features import kernels, relative_transform
from moola_lib.features.sets import WARM_UP_BARS, describe_set
from moola_lib.files import fingerprint, read_json, replace_atomically, write_json
from moola_lib.market.bars import PRICES, Bars
from moola_lib.market.segments import segment_starts

RULES = {"primary": kernels.PRIMARY, "legacy": kernels.LEGACY}
ARRAYS = ("values", "is_valid", "starts", "is_flip")


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

    def cut(self, first, last):
        """Return the rows of bars `first` to `last` (exclusive) as a table of their own.

        Raises
        ------
        ValueError
            `first` or `last` lies inside a segment: what is left of it would lack its warm-up.
        """
        edges = {*self.starts.tolist(), len(self)}
        if not {first, last} <= edges or first >= last:
            raise ValueError(f"bars {first} to {last} are not whole segments")
        starts = self.starts[(self.starts >= first) & (self.starts < last)] - first
        rows = slice(first, last)
        return replace(
            self, values=self.values[rows], is_valid=self.is_valid[rows], starts=starts, is_flip=self.is_flip[rows]
        )

    def save(self, folder, *, bars_fingerprint, **facts):
        """Write `values.npy`, `is_valid.npy`, `starts.npy`, `is_flip.npy` and `metadata.json`.

        Parameters
        ----------
        folder : str or Path
        bars_fingerprint : str
            Of the bars the table was made from; `load` compares it.
        **facts
            Further entries of `metadata.json`, such as where the bars came from.

        Notes
        -----
        `metadata.json` holds a fingerprint of each array's file; `moola features --verify` compares them.
        """
        folder, fingerprints = Path(folder), {}
        for name in ARRAYS:
            with replace_atomically(folder / f"{name}.npy") as path:
                with open(path, "wb") as stream:
                    np.save(stream, getattr(self, name))
                fingerprints[name] = fingerprint(path)
        write_json(
            folder / "metadata.json",
            {
                "set_id": self.set_id,
                "version": self.version,
                "names": self.names,
                "ranges": [[str(low), str(high)] for low, high in self.ranges],
                "n_bars": len(self),
                "n_segments": len(self.starts),
                "valid_share": float(self.is_valid.mean()),
                "non_zero_shares": self.non_zero_shares(),
                "options": self.options,
                "bars_fingerprint": bars_fingerprint,
                "array_fingerprints": fingerprints,
                **facts,
            },
        )

    def non_zero_shares(self):
        """Return each column's share of valid rows that are not 0, (n_features,) float64; NaN without valid rows."""
        n_valid = np.count_nonzero(self.is_valid)
        counts = [np.count_nonzero(column[self.is_valid]) for column in self.values.T]
        return np.array(counts) / n_valid if n_valid else np.full(self.n_features, np.nan)

    @classmethod
    def load(cls, folder, *, bars_fingerprint=None):
        """Read a saved table, its values memory-mapped.

        Raises
        ------
        UserError
            A file is missing or does not go with the others, or the table was made from other bars.
        """
        folder = Path(folder)
        card = read_json(folder / "metadata.json")
        try:
            facts = {name: card[name] for name in ("set_id", "version", "options")}
            facts |= {"names": tuple(card["names"]), "ranges": np.array(card["ranges"], dtype=np.float64)}
            n_bars, made_from = card["n_bars"], card["bars_fingerprint"]
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(
                f"{folder / 'metadata.json'} does not describe a feature table ({error!r}); build the features again"
            ) from error
        if bars_fingerprint is not None and made_from != bars_fingerprint:
            raise UserError(
                f"{folder} was made from bars {made_from}, not from these ({bars_fingerprint}); "
                "build the features again"
            )
        arrays = {}
        for name in ARRAYS:
            try:
                arrays[name] = np.load(folder / f"{name}.npy", mmap_mode="r" if name == "values" else None)
            except (OSError, ValueError) as error:
                raise UserError(f"{folder / name}.npy cannot be read ({error}); build the features again") from error
        expected = {"values": (n_bars, len(facts["names"])), "is_valid": (n_bars,), "is_flip": (n_bars,)}
        for name, shape in expected.items():
            if arrays[name].shape != shape:
                raise UserError(
                    f"{folder / name}.npy has the shape {arrays[name].shape}, metadata.json says {shape}; "
                    "build the features again"
                )
        return cls(**arrays, **facts)


def build_features(
    bars, feature_set="relativity11", zigzag="primary", *, k=3.0, extra=(), max_gap_minutes=5.0, n_threads=1
):
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
    n_threads : int
        Threads that share out the segments; the table is the same to the bit.

    Returns
    -------
    FeatureTable

    Raises
    ------
    UserError
        An option is unknown or out of range, prices are not finite, or these are no bars.
    """
    described = describe_set(feature_set, zigzag, k, extra, max_gap_minutes)
    frame = as_frame(bars)
    prices = [np.ascontiguousarray(frame[name].to_numpy(np.float64)) for name in PRICES]
    return fill_table(prices, segment_starts(frame, max_gap_minutes=max_gap_minutes), described, n_threads=n_threads)


def as_frame(bars):
    """Return the frame of `bars`.

    Raises
    ------
    UserError
        It is no frame of bars with UTC stamps.
    """
    frame = bars.frame if isinstance(bars, Bars) else bars
    if not isinstance(frame, pd.DataFrame):
        raise UserError(f"bars are expected, not {type(frame).__name__}; read the file with moola_lib.market.load_bars")
    if not isinstance(frame.index, pd.DatetimeIndex) or frame.index.tz is None:
        raise UserError("the bars have no index of stamps with a zone; read them with moola_lib.market.load_bars")
    missing = [name for name in PRICES if name not in frame.columns]
    if missing:
        raise UserError(f"the bars lack the column {missing[0]}; they have {', '.join(map(str, frame.columns))}")
    return frame


def fill_table(prices, starts, described, *, n_threads=1):
    """Compute a table from arrays, where the segments are known.

    Parameters
    ----------
    prices : list of 4 ndarray (n_bars,), float64
        Open, high, low and close.
    starts : ndarray (n_segments,), int64
    described : dict
        Of `describe_set`.
    n_threads : int

    Returns
    -------
    FeatureTable

    Raises
    ------
    UserError
        A price is not finite.
    """
    n_bars = len(prices[0])
    values = np.empty((n_bars, len(described["names"])), np.float32)
    is_flip = np.zeros(n_bars, bool)

    def fill(first_segment, last_segment):
        first = starts[first_segment] if first_segment < len(starts) else n_bars
        last = starts[last_segment] if last_segment < len(starts) else n_bars
        part = [series[first:last] for series in prices]
        own_starts = starts[first_segment:last_segment] - first
        return _fill_rows(part, own_starts, described["options"], values[first:last], is_flip[first:last])

    # runs of segments, about equal in bars; more of them than threads, so that a busy core holds up less
    shares = np.searchsorted(starts, np.linspace(0, n_bars, 4 * max(n_threads, 1) + 1))
    shares[-1] = len(starts)
    if n_threads > 1:
        with ThreadPoolExecutor(n_threads) as pool:
            is_finite = all(pool.map(fill, shares[:-1], shares[1:]))
    else:
        is_finite = fill(0, len(starts))
    check_finite(is_finite)
    return FeatureTable(values=values, is_valid=_warmed_up(starts, n_bars), starts=starts, is_flip=is_flip, **described)


def _fill_rows(prices, starts, options, values, is_flip):
    """Fill the rows of whole segments with the set that the options name; tell whether every price is finite."""
    if options["feature_set"] == "relativity11":
        rule, with_consol = RULES[options["zigzag"]], "consol_proxy" in options["extra"]
        return kernels.relativity11(*prices, starts, rule, options["k"], with_consol, values, is_flip)
    if options["feature_set"] == "relative_transform11":
        return relative_transform.relative_transform11(*prices, starts, values)
    np.stack(prices, axis=1, out=values, casting="same_kind")
    return kernels.are_finite(*prices)


def check_finite(is_finite):
    """Refuse prices that are not finite.

    Raises
    ------
    UserError
    """
    if not is_finite:
        raise UserError("a price is missing or infinite; load the bars with load_bars, which drops such rows")


def _warmed_up(starts, n_bars):
    """Tell which bars lie past the first 20 of their segment, (n_bars,) bool."""
    is_valid = np.ones(n_bars, bool)
    rows = np.add.outer(starts, np.arange(WARM_UP_BARS))  # past the end of a short segment lie first rows of the next
    is_valid[rows[rows < n_bars]] = False
    return is_valid
