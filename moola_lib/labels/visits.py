"""One look at one window: its draft, what undo and redo lead to, and how the journal brings it back."""

import uuid
from dataclasses import dataclass, field

from moola_lib.labels.drafts import Draft, read_draft
from moola_lib.labels.table import INNER_BARS


@dataclass
class Visit:
    """One look at one window.

    Attributes
    ----------
    window_id : str
    labelling : str
        Name of the answer, the same when it is corrected later.
    is_repeat : bool
        Asked again, in silence.
    is_shown : bool
        What others say was in sight before or while this was answered.
    draft : Draft
    past, future : list of Draft
        What undo and redo lead to.
    saved : Draft or None
        As it was saved last.
    is_skipped : bool
    seen : int
        Last bar that bar replay has shown.
    seconds : float
        Spent on it.
    """

    window_id: str
    labelling: str = field(default_factory=lambda: uuid.uuid4().hex[:12])
    is_repeat: bool = False
    is_shown: bool = False
    draft: Draft = field(default_factory=Draft)
    past: list = field(default_factory=list)
    future: list = field(default_factory=list)
    saved: Draft | None = None
    is_skipped: bool = False
    seen: int = INNER_BARS[0] - 1
    seconds: float = 0.0

    def apply(self, event):
        """Take over one event of the journal: the only way in which a visit changes.

        Parameters
        ----------
        event : dict
            Of `Journal.append`, about this visit.
        """
        match event["action"]:
            case "show":
                self.is_shown |= event["is_shown"]
            case "undo":
                self.future.append(self.draft)
                self.draft = self.past.pop()
            case "redo":
                self.past.append(self.draft)
                self.draft = self.future.pop()
            case "save":
                self.saved, self.is_skipped, self.seconds = self.draft, False, event["seconds"]
            case "skip":
                self.is_skipped = True
            case "step":
                self.seen = event["seen"]
            case _:
                self.past.append(self.draft)
                self.future.clear()
                self.draft = read_draft(event["draft"])


def replay_visits(events, annotator):
    """Return one person's visits as the journals tell them.

    Parameters
    ----------
    events : list of dict
        Of `journal.read_journals`.
    annotator : str

    Returns
    -------
    list of Visit
        In the order of their first event.
    """
    visits = {}
    for event in events:
        if event["annotator"] != annotator or "labelling" not in event:
            continue
        name = event["labelling"]
        if name not in visits:
            if event["action"] != "show":
                continue  # how it began is lost: a file was taken away
            visits[name] = Visit(event["window_id"], name, event["is_repeat"])
        visits[name].apply(event)
    return list(visits.values())
