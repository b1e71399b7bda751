"""The list of named models, what became of their labels, and the way back to the raw file."""

import io
import shutil

import pandas as pd
import pytest

from moola_lib.cli import main
from moola_lib.errors import UserError
from moola_lib.files import read_json, write_json
from moola_lib.labels import check_labels, load_labels, save_labels
from moola_lib.labels.snapshots import fingerprint_labels
from moola_lib.runs.models import label_mark, list_cards, marks, print_models, read_card, trace
from moola_lib.runs.promoting import promote


@pytest.fixture
def named(project):
    """A project with the model `nq1` and the encoder `enc`."""
    promote(project, "first", "nq1")
    promote(project, "first", "enc", encoder="encoder")
    return project


def listed(root):
    stream = io.StringIO()
    print_models(root, stream)
    return stream.getvalue()


def edit_labels(root):
    """Change two windows, take one away, add three."""
    path = root / "data/raw/labels.parquet"
    table = load_labels(path).table
    table.loc[[4, 5], "expansion_end"] += 1
    more = table.iloc[[1, 2, 3]].assign(window_id=["x", "y", "z"])
    save_labels(check_labels(pd.concat([table.iloc[1:], more])), path)


def test_nothing_named_is_said_so(project, capsys):
    assert main(["models"]) == 0
    assert "no model has a name yet; name one with: moola promote RUN NAME" in capsys.readouterr().out


def test_every_model_is_listed_with_its_figure_beside_its_baseline(named):
    promote(named, "first", "nq1", is_replacing=True)  # the backup is not a model
    assert list(list_cards(named)[0]) == ["enc", "nq1"]
    text = " ".join(listed(named).replace("│", " ").split())
    for part in ("nq1", "enc", "jade", "SIM", "2024-01-01", "36 windows", "logistic"):
        assert part in text


def test_labels_that_changed_since_are_counted(named):
    card = read_card(named, "nq1")
    assert label_mark(named, card) == "" and marks(named, card) == []
    edit_labels(named)
    changed = "labels changed since: +3 −1 ~2 windows"
    assert label_mark(named, card) == (f"{changed}; re-score it with: moola evaluate nq1 BARS data/raw/labels.parquet")
    assert label_mark(named, card) in marks(named, card)
    row = {"meaning": "start within 3 bars", "value": 0.62, "low": 0.55, "high": 0.69}
    now = fingerprint_labels(load_labels(named / "data/raw/labels.parquet").table)
    for found, said in ((now, "re-scored on them: start within 3 bars 0.62 (0.55 to 0.69)"), ("0" * 16, "re-score it")):
        rescored = {"labels": found, "n_windows": 9, "metrics": [row]}
        again = card | {"notes": card["notes"] | {"rescored": rescored}}
        assert label_mark(named, again).startswith(f"{changed}; {said}")
    assert label_mark(named, read_card(named, "enc")) == ""
    shutil.rmtree(named / "data/labels/snapshots")
    assert "by how much is not known" in label_mark(named, card)
    (named / "data/raw/labels.parquet").write_text("not parquet")
    assert "cannot be read" in label_mark(named, card)


def test_rows_in_another_order_are_the_same_labels(named):
    path = named / "data/raw/labels.parquet"
    save_labels(load_labels(path).table.iloc[::-1].assign(annotator="Ann"), path)
    assert label_mark(named, read_card(named, "nq1")) == ""


def test_why_leads_from_the_model_to_the_raw_file(named):
    card = read_card(named, "nq1")
    lines = trace(named, card)
    arrows = [line.split()[1] for line in lines if line.startswith("<-")]
    assert arrows == ["fine-tuning", "labels", "encoder", "pre-training", "features", "bars", "raw"]
    text = "\n".join(lines)
    for known in (
        card["weights_fingerprint"],
        card["notes"]["labels"]["fingerprint"],
        card["notes"]["raw"]["fingerprint"],
    ):
        assert known in text
    for said in (
        "arm pre-trained, fold 1 of 3",
        "n_folds = 3, batch_size = 8",
        "SIM.parquet",
        "04_fine_tuning of run first",
    ):
        assert said in text
    assert "missing" not in text and "run again" not in text
    assert "arm" not in "\n".join(trace(named, read_card(named, "enc")))


def test_what_is_missing_is_said_and_is_no_error(named, capsys):
    shutil.rmtree(named / "data/artifacts")
    shutil.rmtree(named / "data/labels")
    shutil.rmtree(named / "data/raw")
    (named / "data/models/nq1/model.safetensors").unlink()
    assert main(["models", "nq1", "--why"]) == 0
    lines = capsys.readouterr().out.splitlines()
    gone = [
        "weights",
        "04_fine_tuning",
        "<- labels",
        "labels.parquet,",
        "02_label",
        "<- encoder",
        "03_pre",
        "01_feat",
        "raw",
    ]
    for part in gone:
        assert any(part in line and "missing on this machine" in line for line in lines), part
    assert main(["models"]) == 0


def test_an_upstream_run_again_since_is_said(named):
    path = named / "data/artifacts/first/03_pretraining"
    write_json(path / "record.json", read_json(path / "record.json") | {"finished_at": "2126-01-01T00:00:00Z"})
    write_json(path / "encoder.json", read_json(path / "encoder.json") | {"weights_fingerprint": "0" * 16})
    text = "\n".join(trace(named, read_card(named, "nq1")))
    assert "run again since, on 2126-01-01" in text and "other weights are there now (0000000000000000)" in text


def test_a_damaged_card_is_named_and_the_others_are_listed(named, capsys):
    path = named / "data/models/enc/model.json"
    path.write_text(path.read_text()[:40])
    text = listed(named)
    assert "damaged:" in text and "is not valid JSON" in text and "nq1" in text
    write_json(path, {"model": {}, "features": {}, "notes": {"kind": "localiser"}})
    with pytest.raises(UserError, match="is not the card of a promoted model"):
        read_card(named, "enc")
    for words, sentence in ((["enc"], "promote the model again"), (["nope"], "(known: enc, nq1)"), (["--why"], "NAME")):
        assert main(["models", *words]) == 2
        said = capsys.readouterr().err
        assert sentence in said and said.count("\n") == 1


def test_one_model_is_shown_with_its_figures_and_gates(named, capsys):
    assert main(["models", "nq1"]) == 0
    text = capsys.readouterr().out
    assert "start within 3 bars 0.9 (0.8 to 0.95), best baseline logistic regression 0.85" in text
    assert "marks: none" in text and "FAIL" in text and "each answered by the model of its own fold" in text


def test_a_card_goes_by_the_name_of_its_folder(named):
    shutil.move(named / "data/models/nq1", named / "data/models/renamed")
    assert trace(named, read_card(named, "renamed"))[0].startswith("renamed: jade")
