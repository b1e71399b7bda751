"""One window's answer: whatever is pressed, the spans stay valid."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from moola_lib.labels import CLASSES, check_labels
from moola_lib.labels.drafts import Draft, Span, draft_of_rows, edit, read_draft

BARS = st.integers(-20, 130)
ACTIONS = st.one_of(
    st.tuples(st.sampled_from(["start", "end", "unsure"]), st.fixed_dictionaries({"at": BARS})),
    st.tuples(st.just("span"), st.fixed_dictionaries({"start": BARS, "end": BARS})),
    st.tuples(st.just("nudge"), st.fixed_dictionaries({"by": st.integers(-200, 200)})),
    st.tuples(st.just("label"), st.fixed_dictionaries({"label": st.sampled_from(CLASSES)})),
    st.tuples(st.sampled_from(["none", "edge", "add", "choose", "remove"]), st.just({})),
    st.tuples(st.sampled_from(["start", "end"]), st.fixed_dictionaries({"at": BARS, "index": st.integers(0, 3)})),
)


def do(*actions, draft=None):
    """The draft after actions, each a name, or a name and its arguments."""
    draft = draft or Draft()
    for action in actions:
        name, arguments = action if isinstance(action, tuple) else (action, {})
        draft = edit(draft, name, **arguments)
    return draft


def start(at):
    return "start", {"at": at}


def end(at):
    return "end", {"at": at}


def unsure(at):
    return "unsure", {"at": at}


def nudge(by):
    return "nudge", {"by": by}


CONSOLIDATION = ("label", {"label": "consolidation"})


def edges(draft):
    return [(span.start, span.end) for span in draft.spans]


def soft(draft):
    span = draft.spans[draft.active]
    return (span.start_low, span.start_high), (span.end_low, span.end_high)


@given(st.lists(ACTIONS, max_size=40))
def test_spans_are_valid_after_any_actions(actions):
    draft = Draft()
    for name, arguments in actions:
        draft = edit(draft, name, **arguments)
        assert 0 <= draft.active <= max(len(draft.spans) - 1, 0)
        assert not (draft.is_none and draft.spans)
        for span in draft.spans:
            for edge in (span.start, span.end):
                assert edge is None or 0 <= edge <= 104
            if None not in (span.start, span.end):
                assert span.start <= span.end
            for name, bar in (("start", span.start), ("end", span.end)):
                low, high = getattr(span, f"{name}_low"), getattr(span, f"{name}_high")
                assert (low is None) == (high is None)
                if low is not None:
                    assert 0 <= low <= bar <= high <= 104
            if span.start_high is not None and span.end is not None:
                assert span.start_high <= span.end
            if span.end_low is not None and span.start is not None:
                assert span.end_low >= span.start
        assert read_draft(draft.as_dict()) == draft


@given(st.lists(ACTIONS, max_size=40))
def test_what_has_no_problem_is_a_valid_label_and_comes_back(actions):
    draft = do(*actions)
    if draft.problem():
        return
    stamp = pd.Timestamp("2024-03-05 15:00", tz="UTC")
    rows = [
        {"window_id": "w", "symbol": "NQ", "window_start": stamp, "expansion_start": None, "expansion_end": None, **row}
        for row in draft.rows()
    ]
    table = check_labels(pd.DataFrame(rows))
    back = draft_of_rows(table)
    assert back.rows() == draft.rows() and back.is_none == draft.is_none


@pytest.mark.parametrize("bar", [0, 104])
def test_the_first_and_the_last_bar_can_be_both_edges(bar):
    draft = do(start(bar), end(bar), CONSOLIDATION)
    assert edges(draft) == [(bar, bar)] and draft.problem() is None
    assert "flagged" in draft.warning()


def test_bars_outside_the_window_are_its_first_and_last():
    assert edges(do(start(-5), end(500))) == [(0, 104)]
    assert edges(do(("span", {"start": 200, "end": -3}))) == [(0, 104)]


def test_an_edge_that_is_passed_follows():
    assert edges(do(start(50), end(57), start(60))) == [(60, 60)]
    assert edges(do(start(50), end(57), end(40))) == [(40, 40)]


def test_nudging_moves_the_edge_set_last_and_stops_at_the_other():
    draft = do(start(50), end(57))
    assert edges(do(nudge(1), draft=draft)) == [(50, 58)]
    assert edges(do(nudge(-100), draft=draft)) == [(50, 50)]
    assert edges(do("edge", nudge(-1), draft=draft)) == [(49, 57)]
    assert edges(do("edge", nudge(100), draft=draft)) == [(57, 57)]
    assert edges(do(start(3), nudge(-9))) == [(0, None)]
    assert do(nudge(1)) == Draft()


def test_an_unsure_edge_is_an_interval_to_the_bar_pointed_at():
    draft = do(start(50), end(60), "edge")
    assert soft(do(unsure(47), draft=draft))[0] == (47, 50)
    assert soft(do(unsure(53), draft=draft))[0] == (50, 53)
    assert soft(do(unsure(47), unsure(53), draft=draft))[0] == (47, 53)
    assert soft(do(unsure(80), draft=draft))[0] == (50, 60)
    assert soft(do(unsure(50), draft=draft))[0] == (48, 52)
    assert soft(do(unsure(50), unsure(50), draft=draft))[0] == (None, None)
    assert soft(do(unsure(47), nudge(-5), draft=draft))[0] == (45, 50)
    assert soft(do(unsure(47), start(49), draft=draft))[0] == (None, None)  # set anew: sure again
    assert soft(do(unsure(53), end(51), draft=draft))[0] == (50, 51)


def test_none_takes_the_spans_away_and_a_new_edge_takes_none_away():
    draft = do(start(50), end(57), "none")
    assert draft == Draft(is_none=True) and draft.rows() == [{"label": "none"}] and draft.problem() is None
    assert do("none", draft=draft) == Draft()
    assert not do(start(40), draft=draft).is_none


def test_several_expansions_are_edited_one_at_a_time():
    draft = do(start(60), end(65), CONSOLIDATION, "add", start(40), end(45), CONSOLIDATION)
    assert edges(draft) == [(60, 65), (40, 45)] and draft.active == 1
    assert [row["expansion_start"] for row in draft.rows()] == [40, 60]
    assert do("add", "add", draft=draft) == do("add", draft=draft)  # one empty span is enough
    assert do("choose", nudge(1), draft=draft).spans[0].end == 66
    assert edges(do("choose", "remove", draft=draft)) == [(40, 45)]
    assert do("remove", "remove", "remove", draft=draft) == Draft()


def test_what_is_missing_is_named():
    assert "mark an expansion" in do().problem()
    assert "end is not set" in do(start(5)).problem()
    assert "start is not set" in do(end(5)).problem()
    assert "state before it" in do(start(5), end(6)).problem()
    assert "end of expansion 2" in do(start(5), end(6), CONSOLIDATION, "add", start(8)).problem()
    assert "share bar 6" in do(start(5), end(6), CONSOLIDATION, "add", start(6), end(9), CONSOLIDATION).problem()


def test_outside_the_inner_bars_is_a_warning_only():
    draft = do(start(29), end(40), CONSOLIDATION)
    assert draft.problem() is None and "outside the inner bars 30–74" in draft.warning()
    assert do(start(30), end(74), CONSOLIDATION).warning() is None


def test_what_is_no_edit_is_refused():
    with pytest.raises(ValueError, match="no edit 'jump'"):
        edit(Draft(), "jump")
    with pytest.raises(ValueError, match="'up' is not one of"):
        edit(Draft(), "label", label="up")


def test_rows_of_a_table_become_a_draft_of_plain_integers():
    rows = check_labels(
        pd.DataFrame(
            {
                "window_id": "w", "symbol": "NQ", "window_start": pd.Timestamp("2024-03-05 15:00", tz="UTC"),
                "expansion_start": [50, 30], "expansion_end": [55, 33], "label": ["consolidation", "retracement"],
                "start_low": [48, np.nan], "start_high": [51, np.nan],
            }
        )
    )  # fmt: skip
    draft = draft_of_rows(rows)
    assert draft.spans == (Span(30, 33, "retracement"), Span(50, 55, "consolidation", 48, 51))
    assert all(type(span.start) is int for span in draft.spans)
