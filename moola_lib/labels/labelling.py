"""A labelling session: the window at hand, the queue, what may be seen; every action is on disk before it counts."""

import time
from datetime import UTC, datetime, timedelta

import pandas as pd

from moola_lib import __version__
from moola_lib.errors import UserError
from moola_lib.labels.drafts import Draft, draft_of_rows, edit
from moola_lib.labels.journal import Journal, compact, gather_labellings, read_journals
from moola_lib.labels.queue import WindowQueue
from moola_lib.labels.targets import WINDOW_BARS
from moola_lib.labels.visits import Visit, replay_visits

REPEAT_SHARE = 0.1
BUSY_MINUTES = 30  # so long a window that somebody else opened is left to them
NOTHING = {"disagreements": "no window has answers that differ", "flagged": "no window is worth a second look"}
IDLE_SECONDS = 60.0  # a longer pause between two actions counts as this much work


class LabellingSession:
    """Label windows one after the other, without any picture of them.

    Parameters
    ----------
    path : str or Path
        The label table; it need not exist.
    proposals : DataFrame
        Checked rows of a label table (`confidence` may be there besides): the
        windows to label, and what is proposed for each.
    annotator : str
    order, hours : str
        See `queue.order_windows` and `queue.in_hours`.
    flagged : sequence of str
        Windows worth a second look, a queue of their own; those that are nowhere are left out.
    window_ids : list of str, optional
        Ask for exactly these windows, in this order, labelled or not.
    is_blind, is_replay : bool
        Hide what others say until an answer is saved; hide the bars to come.
    is_deciding : bool
        Answers replace those of other people in the table.
    repeat_share : float
        Of the questions that are windows answered before, asked again in silence.
    has_bars : callable, optional
        From a frame with `window_id`, `symbol` and `window_start` to a bool
        array: which windows can be looked at.
    seed : int
    clock : callable
        Seconds, for the time spent.

    Attributes
    ----------
    visits : list of Visit
        Those before, the one at hand, those one came back from.
    queue : WindowQueue
    n_saved : int
        Answers given in this session.

    Raises
    ------
    UserError
        The table cannot be read or written, or what is asked for is not there.
    """

    def __init__(
        self, path, proposals, *, annotator, order="random", hours="all", flagged=(), window_ids=None, is_blind=True,
        is_replay=False, is_deciding=False, repeat_share=REPEAT_SHARE, has_bars=None, seed=17, clock=time.monotonic,
    ):  # fmt: skip
        if not str(annotator).strip():
            raise UserError("annotator is empty; say who is labelling")
        self.path, self.annotator = path, str(annotator).strip()
        self.is_blind, self.is_replay, self.is_deciding = bool(is_blind), bool(is_replay), bool(is_deciding)
        self._journal, self._clock = Journal(path, self.annotator), clock
        self._touched, self._worked, self.n_saved = clock(), 0.0, 0
        table, events = compact(path)
        self.queue = WindowQueue(
            proposals, gather_labellings(table, events), annotator=self.annotator, order=order, hours=hours,
            flagged=flagged, only=window_ids, has_bars=has_bars, repeat_share=repeat_share, seed=seed,
        )  # fmt: skip
        self.visits = [visit for visit in replay_visits(events, self.annotator) if self._resumes(visit)]
        self.visits.sort(key=lambda visit: visit.saved is None)  # what was left unfinished comes last: go on there
        is_unfinished = bool(self.visits) and self.visits[-1].saved is None
        self._at = len(self.visits) - is_unfinished
        self._prepare_next()
        if not is_unfinished:
            self._open_next()

    @property
    def visit(self):
        """The Visit at hand; None at the end of the queue."""
        return self.visits[self._at] if self._at < len(self.visits) else None

    @property
    def upcoming(self):
        """The Visit after the one at hand, or None."""
        return self.visits[self._at + 1] if self._at + 1 < len(self.visits) else self._next

    def window_start(self, window_id):
        """Return the stamp of a window's bar 0."""
        return self.queue.windows.loc[window_id, "window_start"]

    def opinions(self):
        """Return what others say of the window at hand, as far as it may be seen.

        Returns
        -------
        list of dict
            `by`, `label`, `start`, `end`. Empty in blind mode until the answer is saved.
        """
        visit = self.visit
        if visit is None or (self.is_blind and visit.saved is None):
            return []
        answers = self.queue.labellings
        frames = [self.queue.proposals] + ([answers[answers["labelling"] != visit.labelling]] if visit.saved else [])
        rows = [row for frame in frames for row in frame[frame["window_id"] == visit.window_id].to_dict("records")]
        return [
            {
                "by": "?" if pd.isna(row["annotator"]) else str(row["annotator"]),
                "label": row["label"],
                "start": _whole(row["expansion_start"]),
                "end": _whole(row["expansion_end"]),
            }
            for row in rows
        ]

    def progress(self):
        """Return `n_saved` in this session, `n_done` of `n_total` in the queue, `per_hour` and `minutes_left`.

        The last two are None before the first answer.
        """
        left, total = self.queue.n_left(), len(self.queue.ids)
        rate = 3600 * self.n_saved / self._worked if self.n_saved and self._worked > 0 else None
        return {
            "n_saved": self.n_saved,
            "n_done": total - left,
            "n_total": total,
            "per_hour": None if rate is None else round(rate),
            "minutes_left": None if rate is None else round(60 * left / rate),
        }

    def remark(self):
        """Return one sentence on the window at hand, or on why there is none; "" where there is nothing to say."""
        if self.visit is not None:
            return self.visit.draft.warning() or ""
        queue = self.queue
        where = "" if queue.hours == "all" else f" in {queue.hours} hours"
        if not queue.ids:
            what = NOTHING.get(queue.order, "there is no window")
            return f"Nothing to label: {what}{where}. Choose another order, or other hours."
        if queue.n_left():
            return f"Done, but for {queue.n_left()} skipped; open the studio again for the rest."
        return f"Done: all {len(queue.ids)} windows of this queue{where} are labelled."

    def act(self, action, **arguments):
        """Do one action: first on disk, then in memory; where that fails nothing has changed.

        Parameters
        ----------
        action : str
            An edit (`drafts.EDITS`), or one of undo, redo, take (what is
            proposed), step (replay a bar), save (and next), skip, back, blind,
            replay, order, hours.
        **arguments
            Of the edit; `is_on` of blind and replay; `value` of order and hours.

        Returns
        -------
        str or None
            Why nothing was done, in words.

        Raises
        ------
        UserError
            It could not be written.
        ValueError
            There is no such action.
        """
        self._spend()
        if action in ("back", "blind", "replay", "order", "hours"):
            return getattr(self, f"_{action}")(**arguments)
        if self.visit is None:
            return self.remark()
        if action in ("undo", "redo", "take", "step", "save", "skip"):
            return getattr(self, f"_{action}")(**arguments)
        return self._put(action, edit(self.visit.draft, action, **arguments))

    def compact(self):
        """Write the table, and look at what others have saved meanwhile.

        Returns
        -------
        table, events
            As `journal.compact`.

        Raises
        ------
        UserError
            The table cannot be written; the answers are in the journal.
        """
        table, events = compact(self.path)
        self.queue.update(gather_labellings(table, events))
        return table, events

    def close(self):
        """Close the journal."""
        self._journal.close()

    def _note(self, action, **facts):
        """Write an event of the visit at hand, and let it happen."""
        visit = self.visit
        visit.apply(self._journal.append(action, window_id=visit.window_id, labelling=visit.labelling, **facts))

    def _put(self, action, draft):
        if draft != self.visit.draft:
            self._note(action, draft=draft.as_dict())

    def _undo(self):
        if not self.visit.past:
            return "nothing to undo in this window; Backspace goes back to the one before"
        return self._note("undo")

    def _redo(self):
        if not self.visit.future:
            return "nothing to redo"
        return self._note("redo")

    def _take(self):
        if self.is_blind and self.visit.saved is None:
            return "blind: what is proposed stays hidden until you have saved"
        rows = self.queue.proposals[self.queue.proposals["window_id"] == self.visit.window_id]
        if rows.empty:
            return "nothing is proposed for this window"
        return self._put("take", draft_of_rows(rows))

    def _step(self, by=1):
        seen = min(self.visit.seen + max(int(by), 0), WINDOW_BARS - 1)
        if seen != self.visit.seen:
            self._note("step", seen=seen)

    def _save(self):
        visit = self.visit
        problem = visit.draft.problem()
        if problem:
            return f"not saved: {problem}"
        if visit.draft != visit.saved:
            row = self.queue.windows.loc[visit.window_id]
            is_new = visit.saved is None
            self._note(
                "save", symbol=row["symbol"], window_start=row["window_start"], rows=visit.draft.rows(),
                seconds=round(visit.seconds, 1), mode=self._mode(), tool_version=__version__,
                is_repeat=visit.is_repeat, is_deciding=self.is_deciding,
            )  # fmt: skip
            self.n_saved += is_new
            self.queue.mark_answered(visit.window_id, is_new=is_new)
        return self._go_on()

    def _skip(self):
        self._note("skip")
        return self._go_on()

    def _back(self):
        if self._at == 0:
            return "this is the first window"
        self._journal.append("back", window_id=self.visits[self._at - 1].window_id)
        self._at -= 1
        return self._mark_shown()

    def _blind(self, is_on):
        self._journal.append("blind", is_on=bool(is_on))
        self.is_blind = bool(is_on)
        return self._mark_shown()

    def _replay(self, is_on):
        self._journal.append("replay", is_on=bool(is_on))
        self.is_replay = bool(is_on)

    def _order(self, value):
        return self._lay_out_anew(order=value)

    def _hours(self, value):
        return self._lay_out_anew(hours=value)

    def _lay_out_anew(self, **changed):
        """Take another order or other hours; an untouched window at hand gives way, a begun one is finished first."""
        before = {"order": self.queue.order, "hours": self.queue.hours}
        self.queue.rearrange(**changed)
        try:
            self._journal.append("queue", order=self.queue.order, hours=self.queue.hours)
        except UserError:
            self.queue.rearrange(**before)
            raise
        last = self.visits[-1] if self.visits else None
        if last is not None and last is self.visit and last.draft == Draft() and last.saved is None:
            self.visits.pop()
        self._prepare_next()
        if self.visit is None:
            self._open_next()

    def _resumes(self, visit):
        """Return whether a visit of the journals is one to come back to."""
        is_begun = visit.saved is not None or (visit.draft != Draft() and not visit.is_skipped)
        return is_begun and visit.window_id in self.queue.windows.index

    def _prepare_next(self):
        """Choose what comes after the last visit, so that it can be fetched ahead."""
        chosen = self.queue.choose(self.visits, self._busy_elsewhere())
        self._next = None if chosen is None else Visit(chosen[0], is_repeat=chosen[1])

    def _busy_elsewhere(self):
        """Return the windows that others answered, or opened not long ago."""
        lately = f"{datetime.now(UTC) - timedelta(minutes=BUSY_MINUTES):%Y-%m-%dT%H:%M:%S}"
        return {
            event["window_id"]
            for event in read_journals(self.path)
            if event["annotator"] != self.annotator
            and (event["action"] == "save" or (event["action"] == "show" and event["at"] > lately))
        }

    def _go_on(self):
        """Go to the visit after this one, or open the next window."""
        if self._at + 1 < len(self.visits):
            self._at += 1
            return self._mark_shown()
        if self._next is not None and not self._next.is_repeat and self._next.window_id in self._busy_elsewhere():
            self._prepare_next()  # somebody else was faster
        return self._open_next()

    def _open_next(self):
        """Open the window that was chosen, and choose the one after it."""
        visit = self._next
        if visit is None:
            self._at = len(self.visits)
            return
        facts = {"window_id": visit.window_id, "labelling": visit.labelling, "is_repeat": visit.is_repeat}
        visit.apply(self._journal.append("show", **facts, is_shown=not self.is_blind))
        self._at = len(self.visits)
        self.visits.append(visit)
        self._prepare_next()

    def _mark_shown(self):
        """Remember that what others say came into sight, if it did."""
        visit = self.visit
        if visit is not None and not visit.is_shown and (visit.saved is not None or not self.is_blind):
            self._note("show", is_repeat=visit.is_repeat, is_shown=True)

    def _mode(self):
        """Return how the visit at hand was answered: blind or open, with the future hidden or not."""
        return ("open" if self.visit.is_shown else "blind") + (" replay" if self.is_replay else "")

    def _spend(self):
        """Count the time since the last action as work on the window at hand."""
        now = self._clock()
        spent = min(now - self._touched, IDLE_SECONDS)
        self._touched = now
        self._worked += spent
        if self.visit is not None:
            self.visit.seconds += spent


def _whole(value):
    """Return a nullable bar as an integer or None."""
    return None if pd.isna(value) else int(value)
