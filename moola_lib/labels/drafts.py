"""One window's answer while it is being worked on: spans that the tool, not the person, keeps valid.

Every edit is a function of a draft and gives a new draft. The browser does the
same edits for itself (`widgets/studio.js`), so that a key is answered at once;
a test holds the two against each other.
"""

import itertools
from dataclasses import asdict, dataclass, field, fields, replace

from moola_lib.labels.table import INNER_BARS, LABELS
from moola_lib.labels.targets import WINDOW_BARS

LAST = WINDOW_BARS - 1
UNSURE_BARS = 2  # a soft edge reaches so far to both sides, unless a bar is pointed at


@dataclass(frozen=True)
class Span:
    """One expansion, perhaps unfinished.

    Attributes
    ----------
    start, end : int or None
        Bars of the window, both inclusive.
    label : str or None
        The state before it.
    start_low, start_high, end_low, end_high : int or None
        Soft edges: where the edge may as well be.
    """

    start: int | None = None
    end: int | None = None
    label: str | None = None
    start_low: int | None = None
    start_high: int | None = None
    end_low: int | None = None
    end_high: int | None = None


@dataclass(frozen=True)
class Draft:
    """The answer for one window.

    Attributes
    ----------
    spans : tuple of Span
    active : int
        The span that edits go to.
    edge : {"start", "end"}
        The edge that is nudged.
    is_none : bool
        There is no expansion in this window.
    """

    spans: tuple = field(default=())
    active: int = 0
    edge: str = "start"
    is_none: bool = False

    def problem(self):
        """Return what is missing before this can be saved, or None."""
        if self.is_none:
            return None
        if not self.spans:
            return "mark an expansion (S, E), or say there is none (X)"
        for number, span in enumerate(self.spans, 1):
            which = f" of expansion {number}" if len(self.spans) > 1 else ""
            if span.start is None:
                return f"the start{which} is not set (S)"
            if span.end is None:
                return f"the end{which} is not set (E)"
            if span.label is None:
                return f"the state before{which or ' it'} is not set (1 or 2)"
        ordered = sorted(self.spans, key=lambda span: span.start)
        for before, after in itertools.pairwise(ordered):
            if after.start <= before.end:
                return f"two expansions share bar {after.start}"
        return None

    def warning(self):
        """Return what is allowed but unusual, or None."""
        low, high = INNER_BARS
        for span in self.spans:
            for name, bar in (("start", span.start), ("end", span.end)):
                if bar is not None and not low <= bar <= high:
                    return f"the {name} at bar {bar} lies outside the inner bars {low}–{high}: it will be flagged"
            if span.start is not None and span.start == span.end:
                return "an expansion of a single bar: it will be flagged"
        return None

    def rows(self):
        """Return what the label table says of this answer, one dict per expansion."""
        if self.is_none:
            return [{"label": "none"}]
        rows = []
        for span in sorted(self.spans, key=lambda span: span.start):
            row = asdict(span)
            rows.append({"expansion_start": row.pop("start"), "expansion_end": row.pop("end"), **row})
        return rows

    def as_dict(self):
        """Return the draft as JSON takes it."""
        return {**asdict(self), "spans": [asdict(span) for span in self.spans]}


def read_draft(value):
    """Return the draft of `Draft.as_dict`."""
    return Draft(**{**value, "spans": tuple(Span(**span) for span in value["spans"])})


def draft_of_rows(rows):
    """Return the draft of a label table's rows of one window (DataFrame)."""
    spans = []
    for row in rows.sort_values("expansion_start").to_dict("records"):
        if row["label"] == "none":
            return Draft(is_none=True)
        names = {"start": "expansion_start", "end": "expansion_end"}
        values = {each.name: row[names.get(each.name, each.name)] for each in fields(Span) if each.name != "label"}
        spans.append(
            Span(label=row["label"], **{k: int(v) if v == v and v is not None else None for k, v in values.items()})
        )
    return Draft(spans=tuple(spans))


def edit(draft, action, **arguments):
    """Return the draft after an edit; what is asked for outside the window stops at its edge.

    Parameters
    ----------
    draft : Draft
    action : str
        A key of EDITS.
    **arguments
        `at` (bar) of start, end and unsure; `start`, `end` of span; `by` (bars)
        of nudge; `label`; `index` (of a span, also with start, end and span:
        default the active one).

    Returns
    -------
    Draft
        The same one where there is nothing to do.

    Raises
    ------
    ValueError
        The action or an argument is not known.
    """
    if action not in EDITS:
        raise ValueError(f"there is no edit {action!r}; there are {', '.join(EDITS)}")
    return EDITS[action](draft, **arguments)


def _set_start(draft, at, index=None):
    """Put the start at a bar; an end before it follows."""
    return _change(draft, index, "start", lambda span: _put_start(span, _bar(at)))


def _set_end(draft, at, index=None):
    """Put the end at a bar; a start after it follows."""
    return _change(draft, index, "end", lambda span: _put_end(span, _bar(at)))


def _set_span(draft, start, end, index=None):
    """Put both edges, in either order."""
    low, high = sorted((_bar(start), _bar(end)))
    return _change(draft, index, "end", lambda span: _put_end(_put_start(span, low), high))


def _set_label(draft, label):
    """Say which state was before the expansion."""
    if label not in LABELS[:2]:
        raise ValueError(f"{label!r} is not one of {', '.join(LABELS[:2])}")
    return _change(draft, None, draft.edge, lambda span: replace(span, label=label))


def _nudge(draft, by):
    """Move the active edge by some bars, up to the other edge; a soft edge stretches with it."""
    edge = draft.edge
    if not draft.spans or getattr(draft.spans[draft.active], edge) is None:
        return draft

    def move(span):
        at = _within(span, edge, getattr(span, edge) + int(by))
        low, high = getattr(span, f"{edge}_low"), getattr(span, f"{edge}_high")
        span = replace(span, **{edge: at})
        if low is not None:
            span = replace(span, **{f"{edge}_low": min(low, at), f"{edge}_high": max(high, at)})
        return _trim(span)

    return _change(draft, None, edge, move)


def _unsure(draft, at):
    """Make the active edge an interval that reaches to a bar; at the edge itself, switch the interval on or off."""
    edge = draft.edge
    if not draft.spans or getattr(draft.spans[draft.active], edge) is None:
        return draft

    def soften(span):
        here, there = getattr(span, edge), _within(span, edge, _bar(at))
        low, high = getattr(span, f"{edge}_low"), getattr(span, f"{edge}_high")
        if there < here:
            low, high = there, here if high is None else high
        elif there > here:
            low, high = here if low is None else low, there
        elif low is None:
            low, high = _within(span, edge, here - UNSURE_BARS), _within(span, edge, here + UNSURE_BARS)
        else:
            low = high = None
        return replace(span, **{f"{edge}_low": low, f"{edge}_high": high})

    return _change(draft, None, edge, soften)


def _toggle_none(draft):
    """Say that there is no expansion, or take that back."""
    return Draft(is_none=not draft.is_none)


def _toggle_edge(draft):
    """Choose the other edge for nudging."""
    return replace(draft, edge="end" if draft.edge == "start" else "start")


def _add(draft):
    """Begin another expansion; an empty one that is there serves."""
    empty = [k for k, span in enumerate(draft.spans) if span == Span()]
    spans = draft.spans if empty else (*draft.spans, Span())
    return Draft(spans=spans, active=empty[0] if empty else len(spans) - 1)


def _choose(draft, index=None):
    """Go to a span, by default the next one."""
    if not draft.spans:
        return draft
    return replace(draft, active=(draft.active + 1 if index is None else int(index)) % len(draft.spans))


def _remove(draft):
    """Take the active span away."""
    spans = draft.spans[: draft.active] + draft.spans[draft.active + 1 :]
    return Draft(spans=spans, active=max(min(draft.active, len(spans) - 1), 0))


EDITS = {
    "start": _set_start,
    "end": _set_end,
    "span": _set_span,
    "label": _set_label,
    "nudge": _nudge,
    "unsure": _unsure,
    "none": _toggle_none,
    "edge": _toggle_edge,
    "add": _add,
    "choose": _choose,
    "remove": _remove,
}


def _change(draft, index, edge, how):
    """Return the draft with one span changed, which becomes the active one."""
    spans = list(draft.spans) or [Span()]
    active = min(draft.active if index is None else int(index), len(spans) - 1)
    spans[active] = how(spans[active])
    return Draft(spans=tuple(spans), active=active, edge=edge)


def _put_start(span, at):
    """Return the span with a hard start."""
    span = replace(span, start=at, start_low=None, start_high=None)
    if span.end is not None and span.end < at:
        span = replace(span, end=at, end_low=None, end_high=None)
    return _trim(span)


def _put_end(span, at):
    """Return the span with a hard end."""
    span = replace(span, end=at, end_low=None, end_high=None)
    if span.start is not None and span.start > at:
        span = replace(span, start=at, start_low=None, start_high=None)
    return _trim(span)


def _trim(span):
    """Return the span with soft edges that do not pass its other edge."""
    if span.start_high is not None and span.end is not None:
        span = replace(span, start_high=min(span.start_high, span.end))
    if span.end_low is not None and span.start is not None:
        span = replace(span, end_low=max(span.end_low, span.start))
    return span


def _within(span, edge, at):
    """Return the bar nearest to `at` that this edge of the span may have."""
    low = span.start if edge == "end" and span.start is not None else 0
    high = span.end if edge == "start" and span.end is not None else LAST
    return min(max(at, low), high)


def _bar(at):
    """Return the nearest bar of the window."""
    return min(max(int(at), 0), LAST)
