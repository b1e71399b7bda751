"""A labelling session without a picture: what is asked, what is seen, what is written, and what comes back."""

import errno
import os

import numpy as np
import pandas as pd
import pytest

from moola_lib.errors import UserError
from moola_lib.labels import check_labels, load_labels, save_labels
from moola_lib.labels import journal as journals
from moola_lib.labels.drafts import Draft
from moola_lib.labels.journal import gather_labellings, journal_folder, read_journals
from moola_lib.labels.labelling import LabellingSession
from moola_lib.labels.queue import disagreement, draw_repeat, in_hours, order_windows, uncertainty

FIRST = pd.Timestamp("2024-03-05 05:00", tz="UTC")  # midnight in New York
N = 20


class Clock:
    """Seconds that pass when told to."""

    now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "labels.parquet"


@pytest.fixture
def proposals():
    """Windows `w00` to `w19`, two hours apart, with a confidence each."""
    k = np.arange(N)
    return check_labels(
        pd.DataFrame(
            {
                "window_id": [f"w{n:02d}" for n in k],
                "symbol": "NQ",
                "window_start": FIRST + pd.to_timedelta(2 * k, unit="h"),
                "expansion_start": 40 + k,
                "expansion_end": 45 + k,
                "label": "retracement",
                "annotator": "model:m",
                "source": "proposal:model",
                "quality": [f"confidence {0.3 + 0.03 * n:.2f}" for n in k],
            }
        )
    )


@pytest.fixture
def begin(path, proposals, clock):
    """Open a session on the table; further options override."""
    return lambda **options: LabellingSession(
        path, proposals, **{"annotator": "ann", "order": "time", "repeat_share": 0.0, "clock": clock, **options}
    )


def answer(session, start=50, end=57, label="consolidation"):
    """Label the window at hand and go on; return its name."""
    window_id = session.visit.window_id
    session.act("start", at=start)
    session.act("end", at=end)
    session.act("label", label=label)
    assert session.act("save") is None
    return window_id


def test_answers_land_in_the_table_and_the_next_window_opens(begin, path):
    session = begin()
    asked = [answer(session, 40 + k) for k in range(3)]
    assert asked == ["w00", "w01", "w02"] and session.visit.window_id == "w03" and session.upcoming.window_id == "w04"
    table = session.compact()[0]
    assert table["expansion_start"].tolist() == [40, 41, 42] and load_labels(path).table.equals(table)


def test_an_unfinished_answer_is_not_saved_and_says_why(begin):
    session = begin()
    session.act("start", at=50)
    assert session.act("save") == "not saved: the end is not set (E)"
    assert session.visit.window_id == "w00" and session.compact()[0] is None


def test_undo_and_redo_have_no_limit(begin):
    session = begin()
    drafts = [session.visit.draft]
    for k in range(200):
        session.act("start" if k % 2 else "end", at=(37 * k) % 105)
        drafts.append(session.visit.draft)
    for draft in drafts[-2::-1]:
        assert session.act("undo") is None and session.visit.draft == draft
    assert "nothing to undo" in session.act("undo")
    for draft in drafts[1:]:
        assert session.act("redo") is None and session.visit.draft == draft
    assert session.act("redo") == "nothing to redo"
    session.act("undo")
    session.act("none")
    assert session.act("redo") == "nothing to redo"


def test_what_changes_nothing_is_not_noted(begin, path):
    session = begin()
    session.act("start", at=50)
    n = len(read_journals(path))
    session.act("start", at=50)
    session.act("nudge", by=0)
    assert len(read_journals(path)) == n and len(session.visit.past) == 1


def test_going_back_corrects_an_answer_and_comes_forward_again(begin):
    session = begin()
    answer(session)
    answer(session)
    session.act("start", at=33)
    session.act("back")
    session.act("back")
    assert session.visit.window_id == "w00" and "first window" in session.act("back")
    session.act("undo")
    session.act("label", label="retracement")
    session.act("save")
    assert session.visit.window_id == "w01"
    session.act("save")  # nothing changed: only goes on
    assert session.visit.window_id == "w02" and session.visit.draft.spans[0].start == 33
    table, events = session.compact()
    assert table["label"].tolist() == ["retracement", "consolidation"]
    assert len(gather_labellings(table, events)) == 2 and session.progress()["n_saved"] == 2


def test_after_a_kill_everything_is_there_again(begin, path):
    """The second session never heard of the first one but for its journal."""
    session = begin()
    for _ in range(3):
        answer(session)
    session.act("start", at=44)
    session.act("end", at=49)
    session.act("undo")
    again = begin()
    assert load_labels(path).n_windows == 3
    assert again.visit == session.visit and again.progress()["n_done"] == 3
    again.act("redo")
    assert again.visit.draft.spans[0].end == 49
    again.act("back")
    assert again.visit.window_id == "w02" and again.visit.saved is not None
    assert begin(annotator="bob").visit.draft == Draft()  # another person's draft is no business of hers


def test_after_a_kill_the_windows_go_on_in_the_same_order(begin, tmp_path):
    options = {"order": "random", "seed": 3, "repeat_share": 0.3}
    whole = begin(**options)
    asked = [answer(whole) for _ in range(18)]
    for path in journal_folder(whole.path).iterdir():
        path.unlink()
    whole.path.unlink(missing_ok=True)
    in_pieces = []
    for _ in range(6):
        session = begin(**options)
        in_pieces += [answer(session) for _ in range(3)]
    assert in_pieces == asked and len(set(asked)) < 18


def test_repeats_are_asked_in_silence_and_kept_out_of_the_table(begin, proposals):
    session = begin(repeat_share=1.0)
    asked = [answer(session, 40 + k) for k in range(15)]
    again = [k for k in range(15) if asked[k] in asked[:k]]
    assert again[0] == 11 and len(again) >= 2  # ten others lie between
    table, events = session.compact()
    answers = gather_labellings(table, events)
    assert len(table) == len(set(asked)) and answers["is_repeat"].sum() == len(again)
    assert table.set_index("window_id")["expansion_start"].to_dict() == {
        each: 40 + asked.index(each) for each in asked
    }  # the first answer stays
    assert session.progress()["n_saved"] == 15


def test_a_tenth_of_the_questions_is_asked_again():
    old = [f"w{k}" for k in range(100)]
    drawn = [draw_repeat(old, share=0.1, seed=17, n_asked=n) for n in range(2000)]
    share = np.mean([each is not None for each in drawn])
    assert 0.08 < share < 0.12
    assert drawn == [draw_repeat(old, share=0.1, seed=17, n_asked=n) for n in range(2000)]
    assert draw_repeat([], share=1.0, seed=1, n_asked=10) is None


def test_blind_hides_what_others_say_until_the_answer_is_saved(begin):
    answer(begin(annotator="bob", order="time"), 61, 66)
    session = begin(window_ids=["w00", "w01"])
    assert session.opinions() == [] and "blind" in session.act("take")
    answer(session)
    session.act("back")
    assert session.opinions() == [
        {"by": "model:m", "label": "retracement", "start": 40, "end": 45},
        {"by": "bob", "label": "consolidation", "start": 61, "end": 66},
    ]


def test_not_blind_shows_what_is_proposed_and_takes_it_by_a_key(begin):
    session = begin(is_blind=False)
    assert session.opinions() == [{"by": "model:m", "label": "retracement", "start": 40, "end": 45}]
    session.act("take")
    session.act("save")
    assert session.compact()[0][["expansion_start", "expansion_end", "label"]].values.tolist() == [
        [40, 45, "retracement"]
    ]


def test_the_mode_says_whether_others_were_in_sight(begin):
    session = begin()
    answer(session)
    session.act("blind", is_on=False)
    session.act("blind", is_on=True)  # too late
    answer(session)
    session.act("replay", is_on=True)
    answer(session)
    assert session.compact()[0]["mode"].tolist() == ["blind", "open", "blind replay"]
    session.act("back")
    session.act("start", at=20)
    session.act("save")
    assert session.compact()[0]["mode"].tolist()[-1] == "open replay"  # changed after the others were seen


def test_replay_steps_to_the_last_bar_and_is_remembered(begin):
    session = begin(is_replay=True)
    assert session.visit.seen == 29
    session.act("step")
    session.act("step", by=5)
    assert session.visit.seen == 35 and begin().visit.seen == 29  # no answer begun: a fresh look
    session.act("start", at=33)
    assert begin().visit.seen == 35
    session.act("step", by=500)
    assert session.visit.seen == 104


def test_a_skipped_window_is_asked_another_day(begin):
    session = begin()
    session.act("skip")
    assert session.visit.window_id == "w01"
    while session.visit:
        answer(session)
    assert "but for 1 skipped" in session.remark() and session.act("save") == session.remark()
    assert begin().visit.window_id == "w00"


def test_the_end_of_the_queue_is_said_and_one_can_still_go_back(begin):
    session = begin()
    while session.visit:
        answer(session)
    assert "all 20 windows" in session.remark() and session.upcoming is None
    session.act("back")
    assert session.visit.window_id == "w19" and session.upcoming is None


def test_hours_that_match_nothing_say_so_and_can_be_left(begin, proposals, path, clock):
    night = proposals[~in_hours(proposals, "regular")]
    session = LabellingSession(path, night, annotator="ann", order="time", hours="regular", clock=clock)
    assert session.visit is None and session.remark() == (
        "Nothing to label: there is no window in regular hours. Choose another order, or other hours."
    )
    session.act("hours", value="all")
    assert session.visit.window_id == "w00" and session.progress()["n_total"] == len(night)


def test_hours_are_new_york_time():
    stamps = pd.to_datetime(["2024-03-08 14:29", "2024-03-08 14:30", "2024-03-11 13:30", "2024-03-11 20:00"], utc=True)
    frame = pd.DataFrame({"window_start": stamps})
    assert in_hours(frame, "regular").tolist() == [False, True, True, False]  # the clocks change on the 10th
    assert in_hours(frame, "overnight").tolist() == [True, False, False, True]


def test_another_order_keeps_a_window_that_was_begun(begin):
    session = begin()
    session.act("start", at=50)
    session.act("order", value="uncertain")
    assert session.visit.window_id == "w00"
    answer(session)
    assert session.visit.window_id == "w07"  # confidence 0.51
    session.act("order", value="time")
    assert session.visit.window_id == "w01"  # untouched, it gave way
    with pytest.raises(UserError, match="no order 'best'"):
        session.act("order", value="best")
    assert session.queue.order == "time"


def test_the_most_uncertain_come_first(proposals):
    assert order_windows(proposals, "uncertain")[:3] == ["w07", "w06", "w08"]
    exact = proposals.assign(confidence=0.9, state_probability=0.99)
    exact.loc[4, "state_probability"] = 0.5
    assert order_windows(exact, "uncertain")[0] == "w04"
    assert uncertainty(exact)[4] == pytest.approx(0.469 + 1, abs=1e-3)
    with pytest.raises(UserError, match="do not say how sure they are"):
        order_windows(proposals.assign(quality=None), "uncertain")


def test_a_random_order_is_a_permutation_that_the_seed_decides(proposals):
    one, same, other = (order_windows(proposals, "random", seed=seed) for seed in (1, 1, 2))
    assert one == same != other and sorted(one) == sorted(other) == order_windows(proposals, "time")


def test_answers_that_differ_most_come_first_whoever_gave_them(begin):
    bob = begin(annotator="bob")
    answer(bob, 40, 45, "retracement")  # as proposed
    answer(bob, 41, 56, "retracement")  # edges 0 and 10 bars off
    answer(bob, 42, 47, "consolidation")  # another state
    session = begin(order="disagreements")
    assert session.visit.window_id == "w02" and session.upcoming.window_id == "w01"
    assert session.progress()["n_total"] == 2
    answer(session)
    answer(session)
    assert session.visit is None


def test_windows_worth_a_second_look_are_asked_again_in_their_order_when_chosen(begin):
    first = begin()
    answer(first)  # w00
    first.compact()
    session = begin(annotator="bob", flagged=["w05", "w00", "elsewhere"])
    assert session.visit.window_id == "w02" and session.queue.has_flagged, "w01 is at hand elsewhere"
    session.act("order", value="flagged")
    assert session.visit.window_id == "w05" and session.progress()["n_total"] == 2
    answer(session)
    assert session.visit.window_id == "w00", "labelled, and asked again"
    answer(session)
    assert session.visit is None
    nothing = begin(annotator="eve", order="flagged")
    assert nothing.visit is None and "no window is worth a second look" in nothing.remark()


def test_how_far_answers_lie_apart():
    rows = [("a", 1, 40, 45, "retracement"), ("a", 2, 42, 46, "retracement"), ("b", 1, 40, 45, "retracement")]
    rows += [
        ("c", 1, None, None, "none"),
        ("c", 2, 40, 45, "retracement"),
        ("d", 1, None, None, "none"),
        ("d", 2, None, None, "none"),
    ]
    names = ["window_id", "labelling", "expansion_start", "expansion_end", "label"]
    assert disagreement(pd.DataFrame(rows, columns=names)).to_dict() == {"a": 1.5, "b": 0.0, "c": 105.0, "d": 0.0}


def test_a_second_opinion_is_kept_beside_the_first(begin):
    answer(begin(annotator="bob"), 61, 66)
    session = begin(window_ids=["w00"])
    answer(session, 50, 57)
    table, events = session.compact()
    assert table["annotator"].tolist() == ["bob"] and len(gather_labellings(table, events)) == 2
    deciding = begin(annotator="eve", window_ids=["w00"], is_deciding=True)
    answer(deciding, 52, 57)
    assert deciding.compact()[0]["annotator"].tolist() == ["eve"]


def test_two_people_at_once_do_not_label_the_same_window(begin):
    ann, bob = begin(), begin(annotator="bob")
    asked = [answer(session) for _ in range(8) for session in (ann, bob)]
    assert len(set(asked)) == 16
    table, _ = ann.compact()
    assert set(table["window_id"]) == set(asked) and set(table["annotator"]) == {"ann", "bob"}


def test_the_last_windows_are_shared_rather_than_left(begin):
    ann, bob = begin(), begin(annotator="bob")
    while bob.visit:
        answer(bob)
    assert bob.compact()[0]["window_id"].nunique() == N  # the one that ann has open, too
    assert ann.visit.window_id == "w00"


def test_windows_without_bars_are_left_out_and_counted(begin):
    session = begin(has_bars=lambda windows: windows["window_id"] > "w04")
    assert session.queue.n_without_bars == 5 and session.visit.window_id == "w05"
    with pytest.raises(UserError, match="none of the 20 windows lies in the bars"):
        begin(has_bars=lambda windows: np.zeros(len(windows), bool))


def test_the_time_spent_leaves_out_pauses(begin, clock):
    session = begin()
    clock.now += 10
    session.act("start", at=50)
    clock.now += 3600  # a long lunch
    session.act("end", at=57)
    clock.now += 5
    session.act("label", label="retracement")
    session.act("save")
    assert session.compact()[0]["seconds"].tolist() == [75.0]
    assert session.progress() == {"n_saved": 1, "n_done": 1, "n_total": 20, "per_hour": 48, "minutes_left": 24}


def test_a_full_disk_changes_nothing_in_memory_either(begin, path, monkeypatch):
    session = begin()
    session.act("start", at=50)
    before = session.visit.draft

    def refuse(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(journals.os, "write", refuse)
    for action, arguments in [
        ("end", {"at": 57}),
        ("undo", {}),
        ("back", {}),
        ("skip", {}),
        ("hours", {"value": "regular"}),
    ]:
        if action == "back":
            continue  # the first window: nothing to write
        with pytest.raises(UserError, match="No space left on device"):
            session.act(action, **arguments)
        assert session.visit.draft == before and session.visit.window_id == "w00" and session.queue.hours == "all"
    monkeypatch.undo()
    assert answer(session) == "w00"


def test_a_disk_that_fills_up_between_an_answer_and_the_next_window_stops_there(begin, monkeypatch):
    session = begin()
    session.act("none")
    write, calls = os.write, []

    def second_fails(handle, line):
        calls.append(line)
        if len(calls) > 1:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(handle, line)

    monkeypatch.setattr(journals.os, "write", second_fails)
    with pytest.raises(UserError, match="No space left on device"):
        session.act("save")
    assert session.visit.window_id == "w00" and session.visit.saved is not None
    monkeypatch.undo()
    session.act("save")
    assert session.visit.window_id == "w01" and session.progress()["n_saved"] == 1
    assert len(session.compact()[0]) == 1


def test_answers_given_before_there_was_a_journal_count_as_answered(begin, path, proposals):
    given = proposals.iloc[:4].assign(annotator="carol", source="by hand")
    save_labels(given, path)
    session = begin()
    assert session.visit.window_id == "w04" and session.progress()["n_done"] == 4


def test_what_cannot_begin_is_refused(begin, path, proposals):
    with pytest.raises(UserError, match="annotator is empty"):
        begin(annotator=" ")
    with pytest.raises(UserError, match="1 of the windows asked for are not to be had, w99 for one"):
        begin(window_ids=["w00", "w99"])
    with pytest.raises(UserError, match="no proposals are given, and the table is empty"):
        LabellingSession(path, proposals.iloc[:0], annotator="ann")
    with pytest.raises(ValueError, match="no edit 'jump'"):
        begin().act("jump")
