"""Which window to label next: those nobody labelled, in an order that one chooses, and now and then one again."""

import re

import numpy as np
import pandas as pd

from moola_lib.errors import UserError
from moola_lib.labels.targets import WINDOW_BARS
from moola_lib.market.calendar import ZONE

REPEAT_AFTER = 10  # questions between an answer and the same question again
FLAGGED = "flagged"
ORDERS = ("uncertain", "random", "time", "disagreements", FLAGGED)
ASKING_AGAIN = ("disagreements", FLAGGED)
REGULAR_MINUTES = (9 * 60 + 30, 16 * 60)  # New York
HOURS = ("all", "regular", "overnight")


class WindowQueue:
    """The windows there are, which of them are answered, and which is asked next.

    Parameters
    ----------
    proposals : DataFrame
        Rows of a label table, `confidence` perhaps besides.
    labellings : DataFrame
        Of `journal.gather_labellings`.
    annotator : str
        Whose answers may be asked for again.
    order, hours : str
        See `order_windows` and `in_hours`.
    flagged : sequence of str
        Windows worth a second look, for the order "flagged".
    only : list of str, optional
        Ask for exactly these windows, answered or not.
    has_bars : callable, optional
        From a frame with `window_id`, `symbol` and `window_start` to a bool
        array: which windows can be looked at. The others are left out.
    repeat_share : float
    seed : int

    Attributes
    ----------
    ids : list of str
        What is asked, in order.
    windows : DataFrame indexed by window id
        `symbol`, `window_start` of all that can be looked at.
    proposals, labellings : DataFrame
    n_without_bars : int

    Raises
    ------
    UserError
        There is no window, or not those that are asked for.
    """

    def __init__(
        self, proposals, labellings, *, annotator, order, hours="all", flagged=(), only=None, has_bars=None,
        repeat_share, seed,
    ):  # fmt: skip
        self.order, self.hours, self._only = order, hours, None if only is None else [str(each) for each in only]
        self._flagged = [str(each) for each in flagged]
        self._annotator, self._repeat_share, self._seed = annotator, repeat_share, seed
        self._done_here = set()
        names = ["window_id", "symbol", "window_start"]
        frames = [frame[names] for frame in (proposals, labellings) if len(frame)]
        if not frames:
            raise UserError("there is nothing to label: no proposals are given, and the table is empty")
        windows = pd.concat(frames, ignore_index=True).drop_duplicates("window_id")
        is_kept = np.ones(len(windows), bool) if has_bars is None else np.asarray(has_bars(windows), bool)
        self.n_without_bars = int((~is_kept).sum())
        if not is_kept.any():
            raise UserError(f"none of the {len(windows)} windows lies in the bars; give the bars they were made on")
        self.windows = windows[is_kept].set_index("window_id")
        self.proposals = proposals[proposals["window_id"].isin(self.windows.index)]
        self.update(labellings)
        self.ids = self._lay_out()

    @property
    def is_fixed(self):
        """Whether exactly these windows were asked for."""
        return self._only is not None

    @property
    def has_flagged(self):
        """Whether there are windows worth a second look."""
        return bool(self.windows.index.intersection(self._flagged).size)

    def update(self, labellings):
        """Take over what was answered meanwhile, by anyone."""
        self.labellings = labellings
        answers = labellings[~labellings["source"].fillna("").str.startswith("proposal")]
        own = answers[answers["annotator"] == self._annotator].drop_duplicates("labelling")
        self._answered, self._own = set(answers["window_id"]), own["window_id"].tolist()

    def mark_answered(self, window_id, *, is_new):
        """Take over an answer just given; one that corrects an earlier one is not new."""
        self._done_here.add(window_id)
        self._answered.add(window_id)
        if is_new:
            self._own.append(window_id)

    def rearrange(self, **changed):
        """Take another `order` or other `hours`; where that cannot be, nothing changes."""
        before = self.order, self.hours
        vars(self).update(changed)
        try:
            self.ids = self._lay_out()
        except UserError:
            self.order, self.hours = before
            raise

    def is_done(self, window_id):
        """Return whether a window has the answer that is wanted."""
        asks_again = self.is_fixed or self.order in ASKING_AGAIN
        return window_id in (self._done_here if asks_again else self._answered)

    def n_left(self):
        """Return how many windows of the queue want an answer."""
        return sum(not self.is_done(each) for each in self.ids)

    def choose(self, visits, elsewhere):
        """Return the next window and whether it is one asked again in silence; None at the end.

        Parameters
        ----------
        visits : list of Visit
            So far, the one at hand included.
        elsewhere : set of str
            Windows that others are at: they come last.

        Returns
        -------
        (str, bool) or None
        """
        here = {visit.window_id for visit in visits if visit.saved is None}  # at hand, or skipped
        wanted = [each for each in self.ids if not self.is_done(each) and each not in here]
        if not wanted:
            return None
        lately = {visit.window_id for visit in visits[-REPEAT_AFTER:]}
        once = [each for each in self._own if self._own.count(each) == 1 and each not in lately]
        once = [] if self.is_fixed else [each for each in once if each in self.windows.index]
        again = draw_repeat(once, share=self._repeat_share, seed=self._seed, n_asked=len(visits))
        if again is not None:
            return again, True
        return next((each for each in wanted if each not in elsewhere), wanted[0]), False

    def _lay_out(self):
        """Return the windows of the order and hours chosen."""
        if self._only is not None:
            unknown = [each for each in self._only if each not in self.windows.index]
            if unknown:
                raise UserError(f"{len(unknown)} of the windows asked for are not to be had, {unknown[0]} for one")
            return self._only
        if self.order == FLAGGED:
            ids = self._flagged
        else:
            ids = order_windows(self.proposals, self.order, labellings=self.labellings, seed=self._seed)
        windows = self.windows.loc[[each for each in ids if each in self.windows.index]]
        return windows.index[in_hours(windows, self.hours)].tolist()


def order_windows(windows, order, *, labellings=None, seed=17):
    """Return window ids in the order in which to label them.

    Parameters
    ----------
    windows : DataFrame
        Rows of a label table, in general proposals; several of one window are one window.
    order : {"uncertain", "random", "time", "disagreements"}
        Most uncertain first (see `uncertainty`); drawn at random; session by
        session; or the windows whose answers differ, most of all first.
    labellings : DataFrame, optional
        Of `journal.read_labellings`: what the proposals, and each other, may disagree with.
    seed : int

    Returns
    -------
    list of str

    Raises
    ------
    UserError
        The order is not known, or the proposals do not say how sure they are.
    """
    if order not in ORDERS or order == FLAGGED:  # whose order is given with its windows
        raise UserError(f"there is no order {order!r}; choose one of {', '.join(ORDERS)}")
    if order == "disagreements":
        answers = [windows.assign(labelling="proposal"), *([] if labellings is None else [labellings])]
        apart = disagreement(pd.concat([each for each in answers if len(each)] or answers[:1], ignore_index=True))
        return apart[apart > 0].sort_values(ascending=False, kind="stable").index.tolist()
    firsts = windows.drop_duplicates("window_id").sort_values(["window_start", "window_id"])
    ids = firsts["window_id"].tolist()
    if order == "random":
        return [ids[k] for k in np.random.default_rng(seed).permutation(len(ids))]
    if order == "time" or not ids:
        return ids
    bits = uncertainty(windows)
    if bits.isna().all():
        raise UserError(
            "these proposals do not say how sure they are; take proposals of moola predict, or another order"
        )
    by_window = bits.fillna(-1).groupby(windows["window_id"].to_numpy()).max()
    return sorted(ids, key=lambda each: -by_window[each])


def uncertainty(windows):
    """Return how unsure each proposal is, in bits: the entropy of its confidence and, where given, of its state.

    Parameters
    ----------
    windows : DataFrame
        With `confidence` (and `state_probability`) as `moola predict` writes
        them, or `quality` with "confidence 0.87".

    Returns
    -------
    Series, float64
        NaN where a row does not say.
    """
    if "confidence" in windows:
        confidence = windows["confidence"].astype("float64")
    else:
        texts = windows["quality"].fillna("").astype(str)
        confidence = texts.map(_confidence_in).astype("float64")
    bits = _entropy(confidence)
    if "state_probability" in windows:
        bits = bits + _entropy(windows["state_probability"].astype("float64")).fillna(0)
    return bits


def disagreement(labellings):
    """Return how far the answers for each window lie apart, in bars.

    Two answers differ by the mean distance of their first expansion's edges; by
    a whole window where their states differ or only one sees an expansion.

    Parameters
    ----------
    labellings : DataFrame
        `window_id`, `labelling`, and the label table's columns.

    Returns
    -------
    Series indexed by window_id, float64
        The largest difference; 0 where there is one answer only.
    """
    firsts = labellings.sort_values("expansion_start").drop_duplicates(["window_id", "labelling"])
    apart = {}
    for window_id, group in firsts.groupby("window_id"):
        answers = list(zip(group["expansion_start"], group["expansion_end"], group["label"], strict=True))
        pairs = [(a, b) for k, a in enumerate(answers) for b in answers[:k]]
        apart[window_id] = max((_distance(a, b) for a, b in pairs), default=0.0)
    return pd.Series(apart, dtype="float64")


def in_hours(windows, hours):
    """Return which windows begin in regular hours (09:30 to 16:00 New York), or outside of them.

    Parameters
    ----------
    windows : DataFrame
        With `window_start`, UTC.
    hours : {"all", "regular", "overnight"}

    Returns
    -------
    ndarray (n,), bool
    """
    if hours not in HOURS:
        raise UserError(f"there are no hours {hours!r}; choose one of {', '.join(HOURS)}")
    if hours == "all":
        return np.ones(len(windows), bool)
    local = windows["window_start"].dt.tz_convert(ZONE)
    minute = local.dt.hour * 60 + local.dt.minute
    is_regular = minute.between(REGULAR_MINUTES[0], REGULAR_MINUTES[1] - 1).to_numpy()
    return is_regular if hours == "regular" else ~is_regular


def draw_repeat(answered, *, share, seed, n_asked):
    """Return a window to ask again, or None: a draw that the seed and the number of questions so far decide.

    Parameters
    ----------
    answered : list of str
        Windows that may be asked again.
    share : float
        Of all questions.
    seed, n_asked : int
    """
    rng = np.random.default_rng([seed, n_asked])
    if rng.random() >= share or not answered:
        return None
    return answered[int(rng.integers(len(answered)))]


def _confidence_in(text):
    """Return the number after "confidence", NaN where there is none."""
    found = re.search(r"confidence ([0-9.]+)", text)
    return float(found[1]) if found else np.nan


def _entropy(p):
    """Return the entropy of a yes-or-no question in bits."""
    p = p.clip(1e-12, 1 - 1e-12)
    return -(p * np.log2(p) + (1 - p) * np.log2(1 - p))


def _distance(one, other):
    """Return how far two answers (start, end, label) lie apart, in bars."""
    if one[2] != other[2]:
        return float(WINDOW_BARS)
    if one[2] == "none":
        return 0.0
    return (abs(one[0] - other[0]) + abs(one[1] - other[1])) / 2
