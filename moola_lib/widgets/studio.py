"""The label studio: windows shown as candles and labelled by keyboard, mouse or finger in JupyterLab."""

import getpass
import os
from pathlib import Path

import anywidget
import numpy as np
import pandas as pd
import traitlets
from IPython import get_ipython

from moola_lib.errors import UserError
from moola_lib.figures.candles import window_figure
from moola_lib.labels.journal import merge_labels, read_journals, read_table
from moola_lib.labels.labelling import LabellingSession
from moola_lib.labels.proposals import propose_labels
from moola_lib.labels.queue import uncertainty
from moola_lib.labels.table import check_labels
from moola_lib.labels.targets import WINDOW_BARS
from moola_lib.market.bars import PRICES, Bars, load_bars
from moola_lib.market.segments import ZONE, segment_starts

HERE = Path(__file__).parent
SCRIPTS = ("studio_drafts.js", "studio.js")  # one module: no build step, nothing to fetch
CONTEXT_BARS = 45  # shown before bar 0, as far as they are of the same segment
N_PROPOSED = 174
SURENESS = ["confidence", "state_probability"]  # beyond the label table's columns, of `moola predict`


def label_studio(table, bars, proposals=None, *, annotator=None, order=None, is_headless=None, **options):
    """Label windows in JupyterLab; elsewhere show one of them.

    Every action is in the journal beside the table before it is shown as done
    (`labels.journal`); the table is written after each answer. Running the cell
    again, after whatever happened, goes on where the last action left off
    (except that windows asked for by name, `window_ids`, are all asked again).

    Parameters
    ----------
    table : str or Path
        Parquet; it need not exist.
    bars : str, Path, Bars or DataFrame
        What the windows lie in: a file that `load_bars` reads, or bars already loaded.
    proposals : str, Path or DataFrame, optional
        Windows to label: what `moola predict -o` or `propose_labels` made.
        Default: proposals of the surge rule from the bars.
    annotator : str, optional
        Default the user's login name.
    order : {"uncertain", "random", "time", "disagreements", "flagged"}, optional
        Default uncertain where the proposals say how sure they are, else random.
    is_headless : bool, optional
        Return a figure instead. Default: whether nobody is there to click.
    **options
        hours, flagged, window_ids, is_blind, is_replay, is_deciding, repeat_share, seed
        of `labels.labelling.LabellingSession`.

    Returns
    -------
    LabelStudio or plotly Figure

    Raises
    ------
    UserError
        A file cannot be read, the table cannot be written, or no window lies in the bars.
    """
    frame = _read_frame(bars)
    starts = segment_starts(frame)
    proposals = _read_proposals(proposals, frame)
    if _is_headless() if is_headless is None else is_headless:
        return _draw_still(table, proposals, frame, starts)
    if order is None:
        order = "random" if proposals.empty or uncertainty(proposals).isna().all() else "uncertain"
    session = LabellingSession(
        table,
        proposals,
        annotator=annotator or getpass.getuser(),
        order=order,
        has_bars=lambda windows: find_places(windows, frame, starts) >= 0,
        **options,
    )
    return LabelStudio(session, frame, starts)


class LabelStudio(anywidget.AnyWidget):
    """A labelling session and its picture in the browser; made by `label_studio`.

    The browser draws every edit at once and sends it; what comes back in
    `state` is what holds.

    Attributes
    ----------
    session : LabellingSession
    windows : dict
        Candles of the window at hand and of the one after it.
    state : dict
        All that is shown beside the candles.
    """

    _esm = "\n".join((HERE / name).read_text(encoding="utf-8") for name in SCRIPTS)
    _css = HERE / "studio.css"
    windows = traitlets.Dict().tag(sync=True)
    state = traitlets.Dict().tag(sync=True)

    def __init__(self, session, frame, starts):
        self.session, self._frame, self._starts = session, frame, starts
        n = session.queue.n_without_bars
        super().__init__()
        self._show(f"{n} window{'s' if n > 1 else ''} without bars left out" if n else "")
        self.on_msg(self._hear)

    def __repr__(self):
        return "The label studio: open this notebook in JupyterLab and run this cell to label."

    def _hear(self, _widget, content, _buffers):
        """Do what the browser asks for, answer, and then write the table."""
        action, arguments = content.get("action"), content.get("arguments") or {}
        is_error = False
        try:
            message = self._do(action, arguments, content.get("token"))
        except (UserError, ValueError, TypeError) as error:
            message, is_error = str(error), True
        self._show(message, is_error, content)
        if action == "save":
            try:
                self.session.compact()
            except UserError as error:
                message, is_error = str(error), True
            self._show(message, is_error, content)

    def _do(self, action, arguments, token):
        """Do one action; one that was meant for another window than the one at hand is not done."""
        is_free = action in ("back", "blind", "replay", "order", "hours")
        if not is_free and token != _token(self.session.visit):
            return "that was meant for another window; nothing was done"
        return self.session.act(action, **arguments)

    def _show(self, message="", is_error=False, heard=None):
        """Send what holds now."""
        session, visit = self.session, self.session.visit
        upcoming = session.upcoming
        ids = [each.window_id for each in (visit, upcoming) if each is not None]
        windows = {each: self.windows.get(each) or self._candles(each) for each in ids}
        state = {
            "view": (heard or {}).get("view"),
            "n": (heard or {}).get("n", 0),
            **_describe(visit),
            "n_past": len(visit.past) if visit else 0,
            "next": None if upcoming is None else _describe(upcoming),
            "others": session.opinions(),
            "progress": session.progress(),
            "remark": session.remark(),
            "message": message or "",
            "is_error": is_error,
            "is_blind": session.is_blind,
            "is_replay": session.is_replay,
            "order": session.queue.order,
            "hours": session.queue.hours,
            "is_fixed": session.queue.is_fixed,
            "has_flagged": session.queue.has_flagged,
        }
        with self.hold_sync():
            if windows.keys() != self.windows.keys():
                self.windows = windows
            self.state = state

    def _candles(self, window_id):
        """Return a window's bars and those before it, as the browser draws them."""
        place = int(self._frame.index.searchsorted(self.session.window_start(window_id)))
        segment = int(self._starts[np.searchsorted(self._starts, place, side="right") - 1])
        first = max(place - CONTEXT_BARS, segment)
        part = self._frame.iloc[first : place + WINDOW_BARS]
        local = part.index.tz_convert(ZONE)
        begin, end = local[place - first], local[-1]
        return {
            "title": f"{part['symbol'].iloc[0]} · {begin:%a %Y-%m-%d} · {begin:%H:%M}–{end:%H:%M} New York",
            "first": first - place,
            "minute": (local.hour * 60 + local.minute).tolist(),
            **{name: part[name].round(4).tolist() for name in PRICES},
        }


def find_places(windows, frame, starts, *, window_bars=WINDOW_BARS):
    """Return where windows begin in a series, -1 where they do not lie in it whole.

    Parameters
    ----------
    windows : DataFrame
        `symbol` and `window_start` (UTC) of each.
    frame : DataFrame
        Bars of one symbol, indexed by UTC `ts`.
    starts : ndarray (n_segments,), int64
    window_bars : int

    Returns
    -------
    ndarray (n,), int64
    """
    place = frame.index.get_indexer(pd.DatetimeIndex(windows["window_start"]))
    last = place + window_bars - 1
    is_inside = (place >= 0) & (last < len(frame))
    segment = np.searchsorted(starts, place, side="right")
    is_whole = segment == np.searchsorted(starts, last, side="right")
    is_same = windows["symbol"].astype(str).to_numpy() == str(frame["symbol"].iloc[0])
    return np.where(is_inside & is_whole & is_same, place, -1)


def _describe(visit):
    """Return what the browser knows of a visit."""
    if visit is None:
        return {"token": None, "window": None, "draft": None, "is_saved": False, "saved": None, "seen": 0}
    return {
        "token": _token(visit),
        "window": visit.window_id,
        "draft": visit.draft.as_dict(),
        "is_saved": visit.saved is not None,
        "saved": visit.saved and visit.saved.as_dict(),
        "seen": visit.seen,
    }


def _token(visit):
    """Return the name by which the browser says which window it means."""
    return None if visit is None else visit.labelling


def _read_frame(bars):
    """Return the frame of bars, loaded or to be loaded."""
    if isinstance(bars, pd.DataFrame):
        return bars
    return (bars if isinstance(bars, Bars) else load_bars(bars)).frame


def _read_proposals(proposals, frame):
    """Return the checked proposals, with how sure they are where they say so."""
    if proposals is None:
        return propose_labels(frame, n_windows=N_PROPOSED)
    source = "the proposals"
    if not isinstance(proposals, pd.DataFrame):
        source = str(proposals)
        try:
            proposals = pd.read_parquet(proposals)
        except FileNotFoundError as error:
            raise UserError(f"{source} does not exist; give the proposals of moola predict -o") from error
        except (ValueError, OSError) as error:
            raise UserError(f"{source} cannot be read as parquet: {error}") from error
    checked = check_labels(proposals, source=source)
    known = [name for name in SURENESS if name in proposals]
    return checked.assign(**{name: proposals[name].to_numpy("float64") for name in known})


def _is_headless():
    """Return whether nobody is there to click: no kernel, or one that the engine started."""
    shell = get_ipython()
    is_told = bool(os.environ.get("MOOLA_RUN_ID")) or os.environ.get("MOOLA_HEADLESS") == "1"
    return is_told or shell is None or not hasattr(shell, "kernel")


def _draw_still(table, proposals, frame, starts):
    """Return a figure of the first window without a label that says where it can be labelled; write nothing."""
    labels = merge_labels(read_table(table), read_journals(table))
    windows = proposals[find_places(proposals, frame, starts) >= 0].drop_duplicates("window_id")
    if windows.empty:
        raise UserError(f"none of the {len(proposals)} windows lies in the bars; give the bars they were made on")
    is_done = windows["window_id"].isin([] if labels is None else labels["window_id"])
    row = windows[~is_done].iloc[0] if not is_done.all() else windows.iloc[0]
    place = int(frame.index.searchsorted(row["window_start"]))
    told = f"{int(is_done.sum())} of {len(windows)} windows are labelled; open this in JupyterLab to label"
    return window_figure(frame.iloc[place : place + WINDOW_BARS], title=f"{row['window_id']}: {told}")
