"""Contract rolls: where a series moves to another contract, and how it can be made continuous.

Index futures expire on the third Friday of March, June, September and
December. Two neighbouring contract months differ by a nearly constant factor
(carry), so a roll shows as a one-way jump, and interleaved contract months as
jumps of one size there and back.
"""

import numba
import numpy as np
import pandas as pd

from moola_lib.market.calendar import ZONE, quarterly_expiries, trade_dates
from moola_lib.market.rows import PRICES

ROLL_MIN_JUMP = 0.006  # index futures roll at about 0.8-1.5 %; smaller jumps at a break are everyday news
ROLL_MIN_ROBUST_Z = 6.0  # a roll stands far outside the series' own break-to-break moves
FIRST_ROLL_DAY, LAST_ROLL_DAY = -10, 4  # trade dates from a quarterly expiry between which a jump may be a roll
SWITCH_MAX_BARS = 105  # no window fits into a shorter visit to another contract
SWITCH_TOLERANCE = 0.2  # of the jump: two contracts' difference hardly moves while their prices do
SWITCH_MIN_ROBUST_Z = 6.0  # against the moves inside bars of that week, which interleaving leaves alone


def find_rolls(frame, *, max_gap_minutes=5.0, calendar="CME"):
    """Tell at which bars the series moves to another contract.

    Where `instrument_id` is given, a change of it is a roll. Otherwise a roll is
    a move across a gap in the week of a quarterly expiry (from ten days before
    the third Friday of March, June, September and December to four days after
    it) that is at least 0.6 % and at least 6 robust standard deviations of the
    series' own moves across gaps; or a switch between interleaved contract
    months (see `find_interleaved`).

    Parameters
    ----------
    frame : DataFrame
        Bars indexed by UTC `ts`.
    max_gap_minutes : float
        Longest step between two stamps that is no gap, in minutes.
    calendar : {"CME", "NYSE"}
        With "NYSE" no roll is found by price: stocks do not expire.

    Returns
    -------
    ndarray (n_bars,), bool
        True at the new contract's first bar.
    """
    rolled = np.zeros(len(frame), bool)
    rolled[locate_rolls(frame, locate_breaks(frame.index, max_gap_minutes), calendar)] = True
    return rolled


def find_interleaved(frame, *, calendar="CME"):
    """Find stretches in which bars of two contract months take turns.

    Where `instrument_id` is given, a visit is a run of at most 105 bars of
    another instrument after which the first one returns. Otherwise it begins and
    ends, in the week of an expiry, with jumps from close to next open of opposite
    sign and one size (within a fifth), each at least 0.6 % and at least 6 robust
    standard deviations of that week's moves inside one bar. Every switch begins
    a segment, so that no window holds bars of two contracts.

    Returns
    -------
    DataFrame, one row per stretch
        `first`, `last` (UTC stamps of the first bar after its first switch and
        the last bar before its last), `n_bars` between, `n_switches`,
        `level_difference` (median size of the jumps, fraction of price),
        `evidence` (instrument_id or price).

    Notes
    -----
    A bad print of one bar in an expiry week looks the same, and is cut out too.
    In years of low interest the contracts differ by less than 0.6 %: there,
    only `instrument_id` can tell.
    """
    at, has_returned = _switches(frame, calendar)
    rows = []
    for chain in np.split(np.arange(len(at)), np.flatnonzero(~has_returned) + 1):
        if len(chain) > 1:
            first, last = at[chain[0]], at[chain[-1]]
            sizes = np.abs(_moves(frame, at[chain]))
            rows.append((frame.index[first], frame.index[last - 1], last - first, len(chain), np.median(sizes)))
    spans = pd.DataFrame(rows, columns=["first", "last", "n_bars", "n_switches", "level_difference"])
    evidence = "instrument_id" if "instrument_id" in frame.columns else "price"
    stamps = {name: pd.DatetimeIndex(spans[name], tz="UTC") for name in ("first", "last")}
    numbers = {"n_bars": np.int64, "n_switches": np.int64, "level_difference": np.float64}
    return spans.assign(**stamps, evidence=evidence).astype(numbers)


def describe_rolls(frame, *, max_gap_minutes=5.0, n_largest=10, calendar="CME"):
    """Return every roll, and the jumps that might be taken for one, with the verdict on each.

    Parameters
    ----------
    frame : DataFrame
        Bars indexed by UTC `ts`.
    max_gap_minutes : float
    n_largest : int
        How many of the largest jumps at gaps to list beside the rolls, the
        largest of each expiry's week, and jumps without a gap.
    calendar : {"CME", "NYSE"}
        As for `find_rolls`.

    Returns
    -------
    DataFrame, in time order
        `ts` of the first bar after the jump, `trade_date`, `gap_minutes`, `jump`
        (open over the close before, less 1), `robust_z` against the series' own
        moves across gaps, `days_from_expiry` (negative before the nearest
        quarterly expiry), `verdict` (roll, interleaved, no roll), `why`.
    """
    gaps = locate_breaks(frame.index, max_gap_minutes)
    rolled = locate_rolls(frame, gaps, calendar)
    moves = _moves(frame, gaps)
    centre, spread = _robust_scale(moves)
    gaps = gaps[np.argsort(-np.abs(moves), kind="stable")]
    of_weeks = [gaps[(gaps >= low) & (gaps < end)][:1] for low, end in _expiry_weeks(frame.index)]
    at = np.unique(np.concatenate([rolled, locate_jumps(frame), gaps[:n_largest], *of_weeks])).astype(np.int64)
    jumps = _moves(frame, at)
    z = (jumps - centre) / spread if spread > 0 else np.full(len(at), np.nan)
    dates = trade_dates(frame.index[at])
    days = _days_from_expiry(dates)
    switches, has_returned = _switches(frame, calendar)
    is_switch = np.isin(at, switches[has_returned | np.append(False, has_returned[:-1])] if len(switches) else [])
    verdict = np.select([is_switch, np.isin(at, rolled)], ["interleaved", "roll"], "no roll")
    has_ids = "instrument_id" in frame.columns
    is_gap = np.isin(at, gaps)
    return pd.DataFrame(
        {
            "ts": frame.index[at],
            "trade_date": dates.astype("datetime64[ns]"),
            "gap_minutes": minutes_since_previous(frame.index)[at],
            "jump": np.expm1(jumps),
            "robust_z": z,
            "days_from_expiry": days,
            "verdict": verdict,
            "why": [_why(*row, has_ids, calendar) for row in zip(verdict, jumps, z, days, is_gap, strict=True)],
        }
    )


def back_adjust(frame, *, rolled=None, max_gap_minutes=5.0, calendar="CME"):
    """Make a series continuous at its rolls by scaling the prices before each of them.

    Off by default everywhere: features are relative to price, and windows never
    cross a roll.

    Parameters
    ----------
    frame : DataFrame
        Bars indexed by UTC `ts`.
    rolled : ndarray (n_bars,), bool, optional
        True at each new contract's first bar; default `find_rolls`.
    max_gap_minutes : float
    calendar : {"CME", "NYSE"}
        As for `find_rolls`: stocks stay as they are.

    Returns
    -------
    DataFrame
        A copy with open, high, low and close multiplied; the last contract's
        prices and all volumes are unchanged. Prices before a roll are no longer
        whole ticks.

    Notes
    -----
    The ratio is the new contract's first open over the old one's last close,
    since bars of both at one minute are not at hand: whatever the market moved
    between the two is taken for carry, and vanishes with the jump.
    """
    if rolled is None:
        rolled = find_rolls(frame, max_gap_minutes=max_gap_minutes, calendar=calendar)
    at = np.flatnonzero(rolled)
    ratios = frame["open"].to_numpy()[at] / frame["close"].to_numpy()[at - 1]
    ratios[np.abs(ratios - 1) < 1e-12] = 1.0  # what is left of an adjustment made before
    factors = np.append(np.cumprod(ratios[::-1])[::-1], 1.0)
    per_bar = np.repeat(factors, np.diff(np.concatenate([[0], at, [len(frame)]])))
    return frame.assign(**{name: frame[name].to_numpy() * per_bar for name in PRICES})


def minutes_since_previous(index):
    """Return the step before each bar in minutes; the first is 0."""
    stamps = index.as_unit("ns").asi8
    return np.diff(stamps, prepend=stamps[:1]) / 60e9


def locate_breaks(index, max_gap_minutes):
    """Return the positions of bars that follow a gap of more than `max_gap_minutes`, int64; the first bar does not."""
    ticks_per_minute = np.timedelta64(1, "m") / np.timedelta64(1, index.unit)
    # compared in the index's own whole ticks: minutes, or another unit, would cost copies of the stamps
    return _after_long_steps(index.asi8, int(max_gap_minutes * ticks_per_minute))


def locate_jumps(frame):
    """Return the positions at which another contract may begin without a gap, int64.

    Nothing later is looked at, so that segments, and features with them, stay
    causal: a change of `instrument_id` where given; otherwise, in the week of an
    expiry, an open 0.6 % or more away from the close before.
    """
    if "instrument_id" in frame.columns:
        ids = frame["instrument_id"].to_numpy()
        return np.flatnonzero(ids[1:] != ids[:-1]) + 1
    opens, closes = frame["open"].to_numpy(), frame["close"].to_numpy()
    found = [np.zeros(0, np.int64)]
    for low, end in _expiry_weeks(frame.index):
        found.append(low + _far_steps(opens[low:end], closes[low - 1 : end - 1], ROLL_MIN_JUMP))
    return np.concatenate(found)


def is_jump(open_, close_before, ts):
    """Tell of one bar whether it is a place of `locate_jumps` by price; `ts` is its stamp, with a zone."""
    if not abs(open_ - close_before) >= ROLL_MIN_JUMP * close_before:
        return False
    return bool(_is_expiry_week(trade_dates(pd.DatetimeIndex([pd.Timestamp(ts)])))[0])


def locate_rolls(frame, breaks, calendar="CME"):
    """Return the positions at which another contract begins, int64, given those after gaps; see `find_rolls`."""
    if "instrument_id" in frame.columns:
        return locate_jumps(frame)
    at = np.zeros(0, np.int64)
    if calendar == "NYSE":
        return at
    if len(breaks):
        moves = _moves(frame, breaks)
        centre, spread = _robust_scale(moves)
        is_far = (np.abs(moves) >= ROLL_MIN_JUMP) & (np.abs(moves - centre) >= ROLL_MIN_ROBUST_Z * spread)
        at = breaks[is_far & _is_expiry_week(trade_dates(frame.index[breaks]))]
    switches, has_returned = _switches(frame, calendar)
    return np.unique(np.concatenate([at, switches[has_returned], switches[1:][has_returned[:-1]]]))


@numba.njit(cache=True)
def _after_long_steps(stamps, longest):
    """Return the positions whose step from the position before is longer than `longest`, int64."""
    n_long = 0
    after, before = stamps[1:], stamps[:-1]
    for k in range(len(after)):  # counting alone compiles to vector instructions
        n_long += after[k] - before[k] > longest
    found = np.empty(n_long, np.int64)
    n_found = 0
    for k in range(len(after)):
        if n_found == n_long:
            break
        if after[k] - before[k] > longest:
            found[n_found] = k + 1
            n_found += 1
    return found


@numba.njit(cache=True)
def _far_steps(opens, closes, least):
    """Return the positions whose open is the fraction `least` or more away from the close before it, int64."""
    n_far = 0
    for k in range(len(opens)):
        n_far += abs(opens[k] - closes[k]) >= least * closes[k]
    found = np.empty(n_far, np.int64)
    if n_far:  # most weeks have none
        n_far = 0
        for k in range(len(opens)):
            if abs(opens[k] - closes[k]) >= least * closes[k]:
                found[n_far] = k
                n_far += 1
    return found


def _switches(frame, calendar):
    """Return the positions of possible switches, and for each whether the next one returns from it."""
    at = locate_jumps(frame)
    if calendar == "NYSE" and "instrument_id" not in frame.columns:
        at = at[:0]
    if "instrument_id" in frame.columns:
        ids = frame["instrument_id"].to_numpy()
        is_back = ids[at[1:]] == ids[at[:-1] - 1]
    else:
        at = _beyond_their_weeks_moves(frame, at)
        moves = _moves(frame, at)
        sizes = np.abs(moves)
        is_back = np.abs(moves[1:] + moves[:-1]) <= SWITCH_TOLERANCE * np.minimum(sizes[1:], sizes[:-1])
    has_returned = np.zeros(len(at), bool)
    has_returned[:-1] = is_back & (np.diff(at) <= SWITCH_MAX_BARS)
    return at, has_returned


def _beyond_their_weeks_moves(frame, at):
    """Return those jumps that are far outside the moves inside bars of their week of expiry."""
    if len(at) < 2:
        return at
    opens, closes = frame["open"].to_numpy(), frame["close"].to_numpy()
    is_far = np.zeros(len(at), bool)
    for low, end in _expiry_weeks(frame.index):
        here = np.flatnonzero((at >= low) & (at < end))
        if len(here) > 1:
            scale = _robust_scale(np.log(closes[low:end] / opens[low:end]))[1]
            is_far[here] = np.abs(_moves(frame, at[here])) >= SWITCH_MIN_ROBUST_Z * scale
    return at[is_far]


def _expiry_weeks(index):
    """Return the ranges (first, end) of positions in the weeks of expiry that have a bar before them."""
    if len(index) < 2:
        return []
    first, last = index[[0, -1]].tz_localize(None).to_numpy().astype("datetime64[D]")
    expiries = pd.DatetimeIndex(quarterly_expiries(first - 20, last + 20))
    edges = []
    for days in (FIRST_ROLL_DAY, LAST_ROLL_DAY + 1):
        midnight = (expiries + pd.Timedelta(days=days, hours=-6)).tz_localize(ZONE)  # a trade date begins at 18:00
        edges.append(np.maximum(index.searchsorted(midnight.tz_convert("UTC")), 1))
    return [(low, end) for low, end in zip(*edges, strict=True) if low < end]


def _moves(frame, at):
    """Return the log move from the close before to the open of the bars at positions `at`."""
    return np.log(frame["open"].to_numpy()[at] / frame["close"].to_numpy()[at - 1])


def _robust_scale(moves):
    """Return the median, and the robust standard deviation (1.4826 MAD) of moves; 0, 0 of none."""
    if len(moves) == 0:
        return 0.0, 0.0
    centre = np.median(moves)
    return centre, 1.4826 * np.median(np.abs(moves - centre))


def _days_from_expiry(dates):
    """Return the days since the nearest quarterly expiry of each date; negative before it."""
    if len(dates) == 0:
        return np.zeros(0, np.int64)
    margin = np.timedelta64(100, "D")
    expiries = quarterly_expiries(dates.min() - margin, dates.max() + margin)
    days = (dates[:, None] - expiries).astype(np.int64)
    return np.take_along_axis(days, np.abs(days).argmin(axis=1)[:, None], axis=1)[:, 0]


def _is_expiry_week(dates):
    """Tell which trade dates lie from ten days before to four days after a quarterly expiry."""
    days = _days_from_expiry(dates)
    return (days >= FIRST_ROLL_DAY) & (days <= LAST_ROLL_DAY)


def _why(verdict, move, z, days, is_gap, has_ids, calendar):
    """Say in a few words what decided about one jump."""
    if has_ids:
        return "instrument_id is the same" if verdict == "no roll" else "instrument_id changes"
    if calendar == "NYSE":
        return "stocks do not expire"
    if verdict == "interleaved":
        return "a jump there and back near an expiry"
    if not is_gap:
        return "a jump without a gap near an expiry: a segment begins here, more is not known"
    unit = "day" if abs(days) == 1 else "days"
    distance = (
        f"{abs(days)} {unit} {'before' if days < 0 else 'after'} an expiry" if days else "on the day of an expiry"
    )
    if not FIRST_ROLL_DAY <= days <= LAST_ROLL_DAY:
        return f"too far from an expiry: {distance}"
    if abs(move) < ROLL_MIN_JUMP:
        return f"smaller than {ROLL_MIN_JUMP:.1%}, {distance}"
    if abs(z) < ROLL_MIN_ROBUST_Z:
        return f"within {ROLL_MIN_ROBUST_Z:g} robust standard deviations of this series' moves, {distance}"
    return f"far outside this series' moves across gaps, {distance}"
