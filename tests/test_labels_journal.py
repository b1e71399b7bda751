"""The journal: what was reported as saved is on disk, whatever happens, and the table is made from all journals."""

import errno
import json
import os
import random
import signal
import subprocess
import time
from multiprocessing import get_context

import pandas as pd
import pytest

from moola_lib.errors import UserError
from moola_lib.labels import check_labels, load_labels, save_labels
from moola_lib.labels import journal as journals
from moola_lib.labels.journal import Journal, compact, gather_labellings, journal_folder, merge_labels, read_journals

FIRST = pd.Timestamp("2024-03-05 15:00", tz="UTC")


def save(journal, k, start=50, label="retracement", *, labelling=None, is_repeat=False, is_deciding=False):
    """Write the answer to window k."""
    row = (
        {"expansion_start": start, "expansion_end": start + 7, "label": label} if label != "none" else {"label": "none"}
    )
    return journal.append(
        "save", window_id=f"w{k}", symbol="NQ", window_start=FIRST + pd.Timedelta(days=k), rows=[row], seconds=3.5,
        mode="blind", tool_version="0", labelling=labelling or f"{journal.annotator}-{k}", is_repeat=is_repeat,
        is_deciding=is_deciding,
    )  # fmt: skip


def given_row(k, annotator, start=40, source="somebody"):
    """One row of a label table that no journal knows."""
    stamp = FIRST + pd.Timedelta(days=k)
    span = {"expansion_start": start, "expansion_end": start + 5, "label": "consolidation"}
    return {
        "window_id": f"w{k}",
        "symbol": "NQ",
        "window_start": stamp,
        "annotator": annotator,
        "source": source,
        **span,
    }


def starts(table):
    """Window id to its starts."""
    return table.groupby("window_id")["expansion_start"].agg(list).to_dict()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "labels.parquet"


def test_what_was_appended_is_read_back_in_order(path):
    journal = Journal(path, "ann")
    for k in range(5):
        journal.append("start", draft={"spans": [{"start": k}]})
    events = read_journals(path)
    assert [event["action"] for event in events] == ["open", *["start"] * 5]
    assert [event["at"] for event in events] == sorted(event["at"] for event in events)
    assert events[0]["pid"] == os.getpid() and {event["annotator"] for event in events} == {"ann"}
    assert {event["session"] for event in events} == {journal.path.stem}


def test_the_table_holds_every_field_of_an_answer(path):
    journal = Journal(path, "ann")
    soft = {"start_low": 48, "start_high": 52, "end_low": None, "end_high": None}
    journal.append(
        "save", window_id="w", symbol="NQ", window_start=FIRST, seconds=12.5, mode="blind replay", tool_version="9.9",
        rows=[{"expansion_start": 0, "expansion_end": 104, "label": "consolidation", **soft}], labelling="a",
        is_repeat=False, is_deciding=False,
    )  # fmt: skip
    compact(path)
    (row,) = load_labels(path).table.to_dict("records")
    assert row["expansion_start"] == 0 and row["expansion_end"] == 104 and row["label"] == "consolidation"
    assert row["window_start"] == FIRST and row["symbol"] == "NQ" and row["annotator"] == "ann"
    assert (row["start_low"], row["start_high"]) == (48, 52) and pd.isna(row["end_low"])
    assert row["seconds"] == 12.5 and row["mode"] == "blind replay" and row["tool_version"] == "9.9"
    assert row["source"] == "studio" and abs(row["labelled_at"] - pd.Timestamp.now("UTC")) < pd.Timedelta(minutes=5)


def test_merging_twice_changes_nothing(path):
    journal = Journal(path, "ann")
    for k in range(4):
        save(journal, k, 40 + k)
    first, _ = compact(path)
    content = path.read_bytes()
    second, _ = compact(path)
    pd.testing.assert_frame_equal(first, second)
    assert path.read_bytes() == content
    pd.testing.assert_frame_equal(load_labels(path).table, second)


def test_the_last_answer_of_a_person_counts(path):
    journal = Journal(path, "ann")
    save(journal, 1, 40)
    save(journal, 2, 50)
    save(journal, 1, label="none")
    table, events = compact(path)
    assert dict(zip(table["window_id"], table["label"], strict=True)) == {"w1": "none", "w2": "retracement"}
    assert len(gather_labellings(table, events)) == 2  # a correction is no second answer


def test_several_expansions_are_rows_of_one_window_and_change_together(path):
    journal = Journal(path, "ann")
    facts = {"symbol": "NQ", "window_start": FIRST, "seconds": 1.0, "mode": "blind", "tool_version": "0"}
    facts |= {"labelling": "a", "is_repeat": False, "is_deciding": False, "window_id": "w"}
    spans = [(35, 40), (50, 57), (70, 74)]
    rows = [{"expansion_start": a, "expansion_end": b, "label": "retracement"} for a, b in spans]
    journal.append("save", rows=rows, **facts)
    assert starts(compact(path)[0]) == {"w": [35, 50, 70]}
    journal.append("save", rows=rows[1:], **facts)
    assert starts(compact(path)[0]) == {"w": [50, 70]}


def test_two_sessions_of_one_person_are_merged_by_time(path):
    one, other = Journal(path, "ann"), Journal(path, "ann")
    save(one, 1, 40)
    save(other, 2, 41)
    save(other, 1, 42)
    save(one, 3, 43)
    assert one.path != other.path
    assert starts(compact(path)[0]) == {"w1": [42], "w2": [41], "w3": [43]}


def test_a_window_belongs_to_who_labelled_it_first_and_nothing_is_overwritten(path):
    ann, bob = Journal(path, "ann"), Journal(path, "bob")
    save(ann, 1, 40)
    save(bob, 1, 60)
    save(ann, 1, 41)
    table, events = compact(path)
    assert starts(table) == {"w1": [41]} and set(table["annotator"]) == {"ann"}
    answers = gather_labellings(table, events).set_index("labelling")["expansion_start"].to_dict()
    assert answers == {"ann-1": 41, "bob-1": 60}


def test_an_answer_given_to_decide_replaces_the_others(path):
    ann, bob = Journal(path, "ann"), Journal(path, "bob")
    save(ann, 1, 40)
    save(bob, 1, 60, is_deciding=True)
    save(ann, 1, 41)
    assert starts(compact(path)[0]) == {"w1": [60]}
    assert starts(compact(path)[0]) == {"w1": [60]}


def test_silent_repeats_stay_out_of_the_table(path):
    journal = Journal(path, "ann")
    save(journal, 1, 40)
    save(journal, 1, 44, labelling="again", is_repeat=True)
    table, events = compact(path)
    assert starts(table) == {"w1": [40]}
    assert gather_labellings(table, events)["is_repeat"].tolist() == [False, True]


def test_rows_that_no_journal_knows_are_kept_and_proposals_give_way(path):
    rows = [given_row(0, "carol"), given_row(1, "carol"), given_row(2, "rule", source="proposal:surge")]
    save_labels(check_labels(pd.DataFrame(rows)), path)
    journal = Journal(path, "ann")
    for k in (1, 2, 3):
        save(journal, k, 60)
    table, events = compact(path)
    assert starts(table) == {"w0": [40], "w1": [40], "w2": [60], "w3": [60]}
    answers = gather_labellings(table, events)
    assert sorted(answers.loc[answers["window_id"] == "w1", "labelling"]) == ["ann-1", "table:carol"]


def test_an_annotator_may_correct_own_rows_that_no_journal_knows(path):
    save_labels(check_labels(pd.DataFrame([given_row(0, "ann")])), path)
    save(Journal(path, "ann"), 0, 60)
    assert starts(compact(path)[0]) == {"w0": [60]}


def test_nothing_labelled_is_no_table(path):
    Journal(path, "ann").append("skip")
    assert compact(path)[0] is None and not path.exists()
    assert merge_labels(None, []) is None


@pytest.mark.parametrize("cut", [1, 10, 200])
def test_a_torn_last_line_is_left_out(path, cut):
    journal = Journal(path, "ann")
    for k in range(3):
        save(journal, k)
    journal.path.write_bytes(journal.path.read_bytes()[:-cut])
    assert list(starts(compact(path)[0])) == (["w0", "w1", "w2"] if cut == 1 else ["w0", "w1"])


@pytest.mark.parametrize("garbage", [b"\xff\xfe\n", b"[1, 2]\n", b"{}\n", b"null\n", b"\n\n", b'{"at": 1'])
def test_what_is_no_event_is_left_out(path, garbage):
    journal = Journal(path, "ann")
    save(journal, 0)
    with open(journal.path, "ab") as stream:
        stream.write(garbage)
    later = Journal(path, "ann")
    save(later, 1)
    assert list(starts(compact(path)[0])) == ["w0", "w1"]


def test_a_journal_that_grows_shrinks_or_is_another_is_read_as_it_is(path):
    journal = Journal(path, "ann")
    content = []
    for k in range(3):
        save(journal, k)
        content.append(journal.path.read_bytes())
        assert [event["n"] for event in read_journals(path)] == list(range(k + 2))
    journal.path.write_bytes(content[2][:-30])
    assert [event["n"] for event in read_journals(path)] == [0, 1, 2]
    with open(journal.path, "ab") as stream:
        stream.write(content[2][-30:])
    assert [event["n"] for event in read_journals(path)] == [0, 1, 2, 3]
    journal.path.unlink()
    assert read_journals(path) == []
    journal.path.write_bytes(content[1])
    assert [event["n"] for event in read_journals(path)] == [0, 1, 2]


def test_a_full_disk_costs_one_action_and_says_so(path, monkeypatch):
    journal = Journal(path, "ann")
    save(journal, 0)
    before = journal.path.read_bytes()
    write = os.write

    def fill_up(handle, line):
        write(handle, line[: len(line) // 2])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(journals.os, "write", fill_up)
    with pytest.raises(UserError, match=r"not saved, the ones before it are: .*No space left on device.*make room"):
        save(journal, 1)
    monkeypatch.undo()
    assert journal.path.read_bytes() == before
    save(journal, 2)
    assert list(starts(compact(path)[0])) == ["w0", "w2"]
    assert [event["n"] for event in read_journals(path)] == [0, 1, 2]


def test_half_a_line_that_cannot_be_cut_off_hides_no_later_one(path, monkeypatch):
    journal = Journal(path, "ann")
    save(journal, 0)
    write = os.write

    def refuse(*_):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(journals.os, "write", lambda handle, line: write(handle, line[:20]) and refuse())
    monkeypatch.setattr(journals.os, "ftruncate", refuse)
    with pytest.raises(UserError, match="not saved"):
        save(journal, 1)
    monkeypatch.undo()
    save(journal, 2)
    assert list(starts(compact(path)[0])) == ["w0", "w2"]


def test_a_table_that_cannot_be_written_says_that_the_labels_are_safe(path, monkeypatch):
    journal = Journal(path, "ann")
    save(journal, 0)

    def refuse(*_):
        raise UserError(f"cannot write {path}: No space left on device")

    monkeypatch.setattr(journals, "save_labels", refuse)
    with pytest.raises(UserError, match=r"cannot write .*labels are safe in the journals"):
        compact(path)
    monkeypatch.undo()
    assert list(starts(compact(path)[0])) == ["w0"]


def test_a_table_or_folder_that_may_not_be_written_is_refused_at_once(path, tmp_path, monkeypatch):
    save_labels(check_labels(pd.DataFrame([given_row(0, "ann")])), path)
    monkeypatch.setattr(journals.os, "access", lambda *_: False)
    with pytest.raises(UserError, match="may not be written; change its permissions"):
        Journal(path, "ann")
    monkeypatch.undo()
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="choose a folder you may write to"):
        Journal(tmp_path / "file" / "labels.parquet", "ann")


def test_a_table_that_labels_cannot_be_added_to_is_refused_with_what_to_do(path):
    bars = [[100.0, 101.0, 99.0, 100.0]] * 105
    older = {"window_id": ["a"], "label": ["retracement"], "expansion_start": [50], "expansion_end": [55]}
    pd.DataFrame({**older, "features": [bars]}).to_parquet(path)
    with pytest.raises(UserError, match=r"older layout.*moola labels .* -o NEW.parquet --bars BARS"):
        compact(path)
    path.with_suffix(".csv").write_text("window_id\n")
    with pytest.raises(UserError, match="is no parquet file"):
        compact(path.with_suffix(".csv"))


def test_a_table_being_written_by_another_process_is_waited_for_then_named(path, monkeypatch):
    import filelock

    save(Journal(path, "ann"), 0)
    monkeypatch.setattr(journals, "LOCK_SECONDS", 0.1)
    with (
        filelock.FileLock(path.with_name(f".{path.name}.lock")),
        pytest.raises(UserError, match=r"another process has been writing .* labels are safe"),
    ):
        compact(path)
    assert list(starts(compact(path)[0])) == ["w0"]


def write_until_killed(path, annotator, pipe):
    """Save window after window, telling each to the pipe once it is on disk; now and then write the table."""
    journal = Journal(path, annotator)
    for k in range(10_000):
        save(journal, k)
        pipe.send(k)
        if k % 7 == 3:
            compact(path)


@pytest.mark.slow
def test_killed_at_any_moment_nothing_reported_as_saved_is_lost(path):
    """Forty writers, each killed after a random time; now and then a torn line really occurs."""
    fork, rng = get_context("fork"), random.Random(17)
    reported = {}
    for round_ in range(40):
        here, there = fork.Pipe(duplex=False)
        annotator = f"p{round_}"
        writer = fork.Process(target=write_until_killed, args=(path, annotator, there))
        writer.start()
        there.close()
        assert here.poll(30)
        time.sleep(rng.random() * 0.4)
        os.kill(writer.pid, signal.SIGKILL)
        writer.join()
        told = []
        try:
            while here.poll(0):
                told.append(here.recv())
        except EOFError:
            pass
        reported[annotator] = told
        if path.exists():
            load_labels(path)  # never half-written
    table, events = compact(path)
    answers = gather_labellings(table, events)
    for annotator, told in reported.items():
        found = set(answers.loc[answers["annotator"] == annotator, "window_id"])
        assert {f"w{k}" for k in told} <= found and len(found) <= len(told) + 1
    owners = set(table["annotator"])
    assert owners and len(table) == len({f"w{k}" for told in reported.values() for k in told} | set(table["window_id"]))
    assert load_labels(path).table.equals(table)


@pytest.mark.slow
def test_a_really_full_disk_costs_one_action(tmp_path):
    place = tmp_path / "small"
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", place], capture_output=True)
    if mounted.returncode:
        pytest.skip("may not mount a small disk here")
    try:
        path = place / "labels.parquet"
        journal = Journal(path, "ann")
        for n in range(10_000):
            try:
                save(journal, n)
            except UserError as error:
                assert "No space left" in str(error)
                break
        lines = [json.loads(line) for line in journal.path.read_text().splitlines()]
        assert [line["window_id"] for line in lines[1:]] == [f"w{k}" for k in range(n)]
        with pytest.raises(UserError, match="labels are safe in the journals"):
            compact(path)
        subprocess.run(["mount", "-o", "remount,size=1m", place], check=True)
        save(journal, n)
        assert len(compact(path)[0]) == n + 1
    finally:
        journal.close()  # else the place is busy
        subprocess.run(["umount", place], check=True)


def test_the_journals_lie_beside_the_table(path):
    save(Journal(path, "ann"), 0)
    assert journal_folder(path) == path.with_name("labels.journal")
    assert [each.suffix for each in journal_folder(path).iterdir()] == [".jsonl"]
