"""A model of a run gets a name: the right fold, a whole card without paths of this machine, all or nothing."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from promoted import GATE, training_days

from moola_lib.cli import main
from moola_lib.errors import UserError
from moola_lib.files import read_json, write_json
from moola_lib.learning.outputs import predict_windows
from moola_lib.models.weights import load_encoder, load_model, load_tensors, save_tensors
from moola_lib.runs.lineage import portable_path
from moola_lib.runs.promoting import promote


def fold_folder(root, fold=1, arm="pre-trained"):
    return root / "data/artifacts/first/04_fine_tuning/checkpoints/repeat1" / arm.replace(" ", "_") / f"fold{fold}"


def left_behind(root):
    """Everything below data/models."""
    folder = root / "data" / "models"
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_the_promoted_model_answers_as_the_run_s(project, promoted_run):
    folder, _ = promote(project, "first", "nq1", fold=2)
    run = promoted_run[1]
    places = run["windows"].place[run["folds"][1].test]
    own, _ = load_model(fold_folder(project, 2) / "model.safetensors")
    named, _ = load_model(folder / "model.safetensors")
    one, two = (predict_windows(model, run["gather"], places) for model in (own, named))
    assert all(np.array_equal(one[name], two[name]) for name in one)
    assert left_behind(project) == ["nq1/model.json", "nq1/model.safetensors"]


def test_the_default_is_the_fold_trained_on_the_most_recent_days(project, promoted_run):
    days = training_days(promoted_run[1])
    card = promote(project, "first", "nq1")[1]
    assert card["notes"]["training_days"] == max(days, key=lambda each: each[::-1]) == days[0]
    assert card["notes"]["chosen"] == f"fold 1 of 3, the one trained on the most recent days (to {days[0][-1]})"
    assert "by the model of its own fold; all 3 folds of the arm together" in card["notes"]["metrics_note"]
    asked = promote(project, "first", "nq2", arm="random start", fold=3)[1]["notes"]
    assert (asked["arm"], asked["fold"], asked["began_with"]) == ("random start", 3, None)
    assert asked["training_days"] == days[2] and "as asked for" in asked["chosen"]


def test_the_card_is_whole_and_holds_no_path_of_this_machine(project, promoted_run):
    notes = promote(project, "first", "nq1")[1]["notes"]
    assert notes["bars"]["symbol"] == "SIM" and notes["bars"]["bar_minutes"] == 1
    assert notes["labels"]["n_windows"] == 36 and notes["labels"]["file"] == "data/raw/labels.parquet"
    assert notes["feature_options"]["feature_set"] == "relativity11" and notes["feature_version"] == 1
    assert notes["gates"] == [GATE]
    assert notes["metrics"][0]["low"] == 0.8 and notes["metrics"][0]["baseline"] == 0.85
    encoder = read_json(project / "data/artifacts/first/03_pretraining/encoder.json")
    assert notes["began_with"]["weights_fingerprint"] == encoder["weights_fingerprint"]
    assert [step["notebook"][:2] for step in notes["lineage"]] == ["04", "03", "02", "01"]
    assert notes["lineage"][0]["parameters"] == {"n_folds": 3, "batch_size": 8}
    assert notes["lineage"][3]["parameters"] == {"bars": "SIM.parquet"} and notes["raw"]["name"] == "SIM.parquet"
    assert notes["versions"].keys() == {"python", "moola", "torch"} and notes["git"].keys() == {"commit", "is_dirty"}
    text = (project / "data/models/nq1/model.json").read_text()
    assert str(project) not in text and str(promoted_run[0]) not in text and len(text) < 50_000


def test_an_encoder_gets_a_name_and_can_be_transferred(project):
    path = project / "data/artifacts/first/03_pretraining/encoder.json"
    own = read_json(path)
    write_json(path, own | {"notes": own["notes"] | {"macro_f1": {"swing": 0.4}}})
    folder, card = promote(project, "first", "enc", encoder="encoder")
    assert card["notes"]["kind"] == "encoder" and card["notes"]["bars"]["symbol"] == "SIM"
    assert [(row["metric"], row["value"]) for row in card["notes"]["metrics"]] == [
        ("validation_huber", 0.5), ("macro_f1_swing", 0.4)
    ]  # fmt: skip
    model, _ = load_model(fold_folder(project) / "model.safetensors")
    assert load_encoder(model, folder / "model.safetensors")["matched"] == 16


def test_a_taken_name_is_refused_or_its_model_backed_up(project):
    promote(project, "first", "nq1")
    before = (project / "data/models/nq1/model.safetensors").read_bytes()
    with pytest.raises(UserError, match=r"there is a model 'nq1' already; .* --replace"):
        promote(project, "first", "nq1", fold=2)
    assert (project / "data/models/nq1/model.safetensors").read_bytes() == before
    for fold in (2, 3):
        promote(project, "first", "nq1", fold=fold, is_replacing=True)
    assert read_json(project / "data/models/nq1/model.json")["notes"]["fold"] == 3
    backups = sorted((project / "data/models/backups").iterdir())
    assert [read_json(each / "model.json")["notes"]["fold"] for each in backups] == [1, 2]
    assert (backups[0] / "model.safetensors").read_bytes() == before


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["nope", "x"], "there is no run 'nope'; runs with a finished 04_fine_tuning: first"),
        (["first", "x", "--arm", "frozen"], "run first has no arm 'frozen'; it has pre-trained; random start"),
        (["first", "x", "--fold", "4"], "arm pre-trained of run first has no fold 4; it has 1, 2, 3"),
        (["first", "x", "--encoder", "other"], "run first has no encoder 'other'; it has encoder"),
        (["first", "x", "--encoder", "--fold", "1"], "--arm and --fold choose a fine-tuned model"),
        (["first", "../x"], "a model cannot be called '../x'"),
        (["first", "backups"], "a model cannot be called 'backups'"),
        (["../first", "x"], "run id '../first' is not allowed"),
    ],
)
def test_bad_input_is_one_sentence_and_nothing_is_written(project, capsys, words, sentence):
    assert main(["promote", *words]) == 2
    said = capsys.readouterr().err
    assert sentence in said and said.count("\n") == 1
    assert left_behind(project) == []


def test_an_unfinished_run_is_refused(project):
    record = project / "data/artifacts/first/04_fine_tuning/record.json"
    write_json(record, read_json(record) | {"status": "running"})
    with pytest.raises(UserError, match=r"run first has no finished 04_fine_tuning .*; runs that have one: none"):
        promote(project, "first", "x")
    record.unlink()
    with pytest.raises(UserError, match="it has not run to its end"):
        promote(project, "first", "x")
    write_json(project / "reports/second/run.json", {
        "run_id": "second", "status": "failed", "started_at": "2026-01-01T00:00:00Z", "stems": ["04_fine_tuning"],
        "notebooks": {"04_fine_tuning": {"status": "failed"}},
    })  # fmt: skip
    with pytest.raises(UserError, match="its status is failed"):
        promote(project, "second", "x")


def test_a_run_that_kept_no_models_is_refused(project):
    shutil.rmtree(fold_folder(project).parents[1])
    with pytest.raises(UserError, match="run first kept no models of 04_fine_tuning"):
        promote(project, "first", "x")


def test_damaged_weights_are_refused_and_nothing_is_written(project):
    path = fold_folder(project) / "model.safetensors"
    whole = path.read_bytes()
    path.write_bytes(whole[:-100])
    with pytest.raises(UserError, match="is truncated"):
        promote(project, "first", "x")
    path.write_bytes((fold_folder(project, 2) / "model.safetensors").read_bytes())
    with pytest.raises(UserError, match="does not belong to the card beside it"):
        promote(project, "first", "x")
    path.write_bytes(whole)
    tensors, metadata = load_tensors(path)
    next(iter(tensors.values())).add_(1)
    save_tensors(tensors, path, metadata=metadata)  # as the card says, but for the values
    with pytest.raises(UserError, match=r"holds other weights .* than its card says"):
        promote(project, "first", "x")
    card = path.with_suffix(".json")
    card.write_text(card.read_text()[:-20])
    with pytest.raises(UserError, match="is not valid JSON"):
        promote(project, "first", "x")
    assert left_behind(project) == [] and not list((project / "data" / "models").glob("*"))


def test_notebooks_run_again_since_are_not_taken_for_the_ones_before(project):
    record = project / "data/artifacts/first/02_label_generation/record.json"
    write_json(record, read_json(record) | {"finished_at": "2126-01-01T00:00:00Z"})
    shutil.rmtree(project / "data/artifacts/first/03_pretraining")
    steps = {step["notebook"][:2]: step for step in promote(project, "first", "x")[1]["notes"]["lineage"]}
    assert steps["02"].keys() == {"notebook", "run_id", "unknown"} and "was run again" in steps["02"]["unknown"]
    assert "was gone" in steps["03"]["unknown"] and "unknown" not in steps["01"]


def test_a_portable_path_is_relative_to_the_project_or_the_home():
    assert portable_path("/work/a/data/x.parquet", Path("/work/a")) == "data/x.parquet"
    assert portable_path(Path.home() / "labels" / "x.parquet", Path("/work/a")) == "~/labels/x.parquet"
    assert portable_path("/mnt/x.parquet", Path("/work/a")) is None
