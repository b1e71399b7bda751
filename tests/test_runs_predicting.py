"""`moola predict`: files that read back, bad input in one sentence, and a followed file that ends as the batch does."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest
import torch

from moola_lib.cli import main
from moola_lib.errors import UserError
from moola_lib.evaluation.thresholds import calibrate_alarms, store_alarms
from moola_lib.features import build_features
from moola_lib.labels import check_labels, load_labels
from moola_lib.learning import predict
from moola_lib.learning.scan import scan
from moola_lib.market import load_bars, save_bars, simulate_bars
from moola_lib.models import build_model
from moola_lib.models.weights import load_model, save_model
from moola_lib.runs.following import Follower, follow_bars
from moola_lib.runs.predicting import open_model, predict_bars, settle_manner
from moola_lib.runs.prediction_files import read_facts
from moola_lib.windows import place_labels


def save_linear(folder, *, knows_none=True, set_id="relativity11.v1/primary/k=3", n_classes=2, **options):
    """Write a linear model of random weights, with the card of a feature set."""
    from moola_lib.features.set_ids import options_of
    from moola_lib.features.sets import describe_set

    names = describe_set(**options_of(set_id))["names"]
    torch.manual_seed(4)
    model = build_model("linear_segments", n_features=len(names), n_classes=n_classes, start_range=(30, 74), **options)
    with torch.no_grad():
        model.segment_head.start.weight.normal_(0, 0.3)
        model.segment_head.null.fill_(12.0)
        model.segment_head.knows_none.fill_(knows_none)
    folder.mkdir(parents=True, exist_ok=True)
    save_model(model, folder / "model.safetensors", features={"set_id": set_id, "names": names})
    return folder / "model.safetensors"


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A project with a model called `first`, its threshold set, and a file of bars."""
    home = tmp_path_factory.mktemp("home")
    (home / "notebooks").mkdir()
    path = save_linear(home / "data" / "models" / "first")
    market = simulate_bars(n_sessions=2, seed=8, hole_share=0.05)
    save_bars(market.bars, home / "bars.parquet")
    model, table = load_model(path)[0], build_features(market.bars)
    for is_causal in (False, True):
        found = calibrate_alarms(model, table, market.bars.frame.index, [], alarms_per_session=9, is_causal=is_causal)
        store_alarms(path, found, is_causal=is_causal)
    return home


@pytest.fixture
def here(home, tmp_path, monkeypatch):
    """A copy of the project that a test may spoil."""
    shutil.copytree(home, tmp_path, dirs_exist_ok=True)
    monkeypatch.setenv("MOOLA_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_prediction_reads_back_as_proposals_on_its_bars(here, capsys):
    assert main(["predict", "bars.parquet", "--model", "first", "-o", "out/found.parquet", "--csv", "found.csv"]) == 0
    captured = capsys.readouterr()
    assert "retrospective" in captured.out and "for 9 alarms a session" in captured.out and captured.err == ""
    labels = load_labels("out/found.parquet")
    bars = load_bars("bars.parquet")
    table = build_features(bars)
    windows, lost = place_labels(labels.table, bars.frame, table.starts)
    assert labels.is_proposed and len(lost) == 0 and len(windows) >= 9
    written, charted = pd.read_parquet("out/found.parquet"), pd.read_csv("found.csv")
    model, _ = load_model("data/models/first/model.safetensors")
    known = scan(model, table, threshold=read_facts("out/found.parquet")["threshold"])
    assert written["start_ts"].tolist() == bars.frame.index[known.detections["start"]].tolist()
    assert written["end_high_ts"].tolist() == bars.frame.index[known.detections["end_high"]].tolist()
    assert pd.to_datetime(charted["end_ts"]).tolist() == written["end_ts"].tolist()
    by_bar = pd.read_parquet("out/found.bars.parquet")
    assert by_bar.index.equals(bars.frame.index) and set(by_bar["mode"]) == {"retrospective"}
    np.testing.assert_array_equal(by_bar["inside_probability"], known.inside_probability)
    assert by_bar["inside_probability"].dtype == np.float32


def test_the_files_say_how_they_were_made(here, capsys):
    words = ["predict", "bars.parquet", "--model", "first", "-o", "found.parquet", "--causal", "--threshold", "0.4"]
    assert main([*words, "--stride", "3"]) == 0
    for path in ("found.parquet", "found.bars.parquet"):
        facts = read_facts(path)
        assert facts["bars_fingerprint"] == load_bars("bars.parquet").fingerprint
        expected = {"mode": "causal", "stride": 3, "threshold": 0.4, "alarms_per_session": None, "model": "first"}
        assert {name: facts[name] for name in expected} == expected
    found = pd.read_parquet("found.parquet")
    assert set(found["mode"]) == {"causal"} and (found["seen_to_ts"] >= found["start_ts"]).all()
    assert main(words) == 2 and "replace it with --overwrite" in capsys.readouterr().err
    assert main([*words, "--overwrite"]) == 0 and read_facts("found.parquet")["stride"] == 5


def test_fewer_alarms_ask_for_a_higher_threshold(here):
    opened = open_model("first", "cpu")
    thresholds = [settle_manner(opened, alarms_per_session=each).threshold for each in (12, 9, 4, 2)]
    assert thresholds == sorted(thresholds) and thresholds[0] < thresholds[-1]
    assert settle_manner(opened).threshold == thresholds[1]
    assert "at stride 5" in settle_manner(opened, stride=4).source


def test_a_model_without_null_score_or_threshold_says_so(here, capsys):
    save_linear(here / "bare", knows_none=False)
    words = ["predict", "bars.parquet", "--model", "bare/model.safetensors", "-o", "found.parquet"]
    assert main(words) == 0
    out = capsys.readouterr().out
    assert "not calibrated: false alarms are not known" in out and "given that there is one" in out
    assert read_facts("found.parquet")["knows_none"] is False and pd.read_parquet("found.parquet")["annotator"][0]
    assert main([*words, "--overwrite", "--alarms-per-session", "2"]) == 2
    assert "no retrospective threshold by alarms per session" in capsys.readouterr().err


def test_nothing_found_is_a_file_without_rows(here):
    found = predict_bars("bars.parquet", "first", "found.parquet", threshold=1.0)
    again = pd.read_parquet("found.parquet")
    assert len(found) == len(again) == 0 and len(check_labels(again)) == 0
    one = predict_bars("bars.parquet", "first", "one.parquet", threshold=0.4)
    assert again.columns.tolist() == one.columns.tolist()
    assert again.dtypes["start_ts"] == one.dtypes["start_ts"] and again.dtypes["window_start"].tz is not None


def spoil_card(here, **changes):
    path = here / "data" / "models" / "first" / "model.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def cut_weights(here):
    path = here / "data" / "models" / "first" / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def other_shape(here):
    card = json.loads((here / "data/models/first/model.json").read_text())
    spoil_card(here, model=card["model"] | {"options": {"start_range": [30, 74], "lead_bars": 2}})


def other_features(here):
    spoil_card(here, features={"set_id": "ohlc4.v1", "names": ["open", "high", "low", "close"]})


def without_segments(here):
    model = build_model("jade", n_features=11, hidden_size=4)
    names = build_features(load_bars("bars.parquet")).names
    save_model(
        model, "data/models/first/model.safetensors", features={"set_id": "relativity11.v1/primary/k=3", "names": names}
    )


def short_bars(here):
    save_bars_of(load_bars("bars.parquet").frame.iloc[:104], here / "bars.parquet")


def save_bars_of(frame, path):
    from moola_lib.market.bars import clean_bars

    save_bars(clean_bars(frame, source="cut"), path)


SPOILERS = [
    (cut_weights, "is truncated or not a safetensors file"),
    (lambda here: spoil_card(here, weights_fingerprint="0" * 16), "does not belong to the card beside it"),
    (other_shape, "the weights do not fit the linear_segments of its card"),
    (other_features, "reads 11 columns|reads 4 columns"),
    (lambda here: spoil_card(here, features={"set_id": "bare2.v1", "names": []}), "cannot be made from bars"),
    (lambda here: spoil_card(here, features={"names": []}), "is not the card of a model"),
    (lambda here: spoil_card(here, model=None), "is not the card of a model"),
    (lambda here: (here / "data/models/first/model.json").unlink(), "has no card model.json beside it"),
    (without_segments, "train one with heads: segment"),
    (lambda here: save_linear(here / "data/models/first", n_classes=1), "train a model of two classes"),
    (short_bars, "no window of 105 bars fits"),
    (lambda here: (here / "bars.parquet").write_bytes(b""), "bars.parquet is empty"),
]


@pytest.mark.parametrize(("spoil", "sentence"), SPOILERS, ids=[sentence for _, sentence in SPOILERS])
def test_what_does_not_fit_is_one_sentence_and_nothing_is_written(here, capsys, spoil, sentence):
    spoil(here)
    before = sorted(here.rglob("*"))
    assert main(["predict", "bars.parquet", "--model", "first", "-o", "found.parquet"]) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("moola: ") and any(each in captured.err for each in sentence.split("|"))
    assert captured.err.count("\n") == 1 and captured.out == "" and sorted(here.rglob("*")) == before


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--model", "second"], "there is no model 'second'"),
        (["--model", "absent.safetensors"], "absent.safetensors does not exist"),
        (["--stride", "0"], "stride 0 is not allowed"),
        (["--threshold", "nan"], "give a number from 0 to 1"),
        (["--alarms-per-session", "-1"], "give a number above 0"),
        (["-o", "found.csv"], "give a name that ends in .parquet"),
        (["--csv", "data"], "is a folder"),
        (["--symbol", "ES"], "holds no bars of 'ES'"),
    ],
)
def test_other_options_are_refused(here, capsys, words, sentence):
    assert main(["predict", "bars.parquet", "--model", "first", "-o", "found.parquet", *words]) == 2
    assert sentence in capsys.readouterr().err and not (here / "found.parquet").exists()


def read_outputs():
    return [pd.read_parquet(f"found{middle}.parquet") for middle in ("", ".bars")]


@pytest.mark.parametrize("suffix", ["parquet", "csv"])
def test_a_file_that_grew_in_pieces_ends_as_the_causal_batch_does(here, suffix):
    frame = load_bars("bars.parquet").frame
    path = here / f"live.{suffix}"

    def write(n_bars):
        if suffix == "parquet":
            save_bars_of(frame.iloc[:n_bars], path)
        else:
            frame.iloc[:n_bars].to_csv(path, date_format="%Y-%m-%dT%H:%M:%SZ")

    opened = open_model("first", "cpu")
    manner = settle_manner(opened, is_causal=True, threshold=0.05)
    follower = Follower(path, opened, manner)
    edges = [*np.sort(np.random.default_rng(2).choice(np.arange(60, len(frame)), 12, replace=False)), len(frame)]
    edges[3:3] = range(edges[2] + 1, edges[2] + 4)  # bar by bar, too
    counts = []
    for n_bars in edges:
        write(n_bars)
        assert follower.poll() and not follower.poll()
        counts.append(len(follower.detections))
    follow_bars(path, "first", "found.parquet", threshold=0.05, n_polls=1)
    at_once = read_outputs()
    predict_bars(path, "first", "found.parquet", is_causal=True, threshold=0.05, is_overwriting=True)
    batch = read_outputs()
    for one, two in zip(at_once, batch, strict=True):
        pd.testing.assert_frame_equal(one, two, check_exact=True)
    found = follower.detections
    assert frame.index[found["start"]].tolist() == batch[0]["start_ts"].tolist()
    assert frame.index[found["seen_to"]].tolist() == batch[0]["seen_to_ts"].tolist()
    np.testing.assert_allclose(found["confidence"], batch[0]["confidence"], atol=1e-6)
    np.testing.assert_allclose(follower.answers[0], batch[1]["inside_probability"], atol=1e-6)
    assert counts == sorted(counts) and len(set(counts)) > 5  # appended, piece by piece


def test_new_detections_are_written_and_said_as_they_come(here, capsys, monkeypatch):
    frame = load_bars("bars.parquet").frame
    lengths = iter([900, 900, 1500])
    save_bars_of(frame.iloc[:600], "live.parquet")
    monkeypatch.setattr("time.sleep", lambda seconds: save_bars_of(frame.iloc[: next(lengths)], "live.parquet"))
    follow_bars("live.parquet", "first", "found.parquet", threshold=0.3, n_polls=4)
    lines = capsys.readouterr().out.splitlines()
    said = [line for line in lines if "an expansion since" in line]
    seen = pd.read_parquet("found.parquet")["seen_to_ts"]
    assert len(said) == (seen >= frame.index[600]).sum() > 0
    assert read_facts("found.parquet")["mode"] == "causal" and len(read_outputs()[1]) == 1500


def shrink(frame):
    return frame.iloc[:500], "has shrunk from 900 bars to 500"


def rewrite(frame):
    other = frame.iloc[:950].copy()
    other.iloc[3, other.columns.get_loc("close")] = other["open"].iloc[3]
    return other, f"its bar at {frame.index[3]} is another one now"


@pytest.mark.parametrize("spoil", [shrink, rewrite])
def test_a_file_that_shrinks_or_is_rewritten_ends_the_watch(here, capsys, monkeypatch, spoil):
    frame = load_bars("bars.parquet").frame
    spoiled, sentence = spoil(frame)
    save_bars_of(frame.iloc[:900], "live.parquet")
    monkeypatch.setattr("time.sleep", lambda seconds: save_bars_of(spoiled, "live.parquet"))
    assert main(["predict", "--follow", "live.parquet", "--model", "first", "-o", "found.parquet"]) == 2
    error = capsys.readouterr().err
    assert sentence in error and error.count("\n") == 1
    assert len(read_outputs()[1]) == 900


def test_a_line_that_is_still_being_written_is_waited_for(here):
    text = load_bars("bars.parquet").frame.iloc[:300].to_csv(date_format="%Y-%m-%dT%H:%M:%SZ")
    path = here / "live.csv"
    path.write_text(text[:-4])
    opened = open_model("first", "cpu")
    follower = Follower(path, opened, settle_manner(opened, is_causal=True))
    assert not follower.poll()
    path.write_text(text)
    assert follower.poll() and len(follower.bars) == 300
    path.unlink()
    with pytest.raises(UserError, match=r"live.csv cannot be read"):
        follower.poll()


def test_predict_as_a_function_takes_a_file_or_an_open_model_and_gives_the_scan(here):
    bars = load_bars(here / "bars.parquet")
    path = here / "data" / "models" / "first" / "model.safetensors"
    opened = open_model("first", "cpu")
    threshold = settle_manner(opened).threshold
    expected = scan(opened.model, build_features(bars), stride=5, threshold=threshold)
    for model, given in ((path, here / "bars.parquet"), (opened, bars), (str(path), bars.frame)):
        found = predict(model, given)
        assert found.detections.equals(expected.detections)
        np.testing.assert_array_equal(found.inside_probability, expected.inside_probability)
    causal = predict(opened, bars, is_causal=True)
    assert causal.is_causal and causal.threshold == settle_manner(opened, is_causal=True).threshold


def test_segments_are_cut_where_the_cards_longest_gap_says(here):
    path = here / "data" / "models" / "first" / "model.safetensors"
    bars = load_bars(here / "bars.parquet")  # it has holes
    model, card = load_model(path)
    n_segments = []
    for longest in (1.0, 60.0):
        features = {"feature_options": {"max_gap_minutes": longest}}
        save_model(model, path, features=card["features"], notes=card["notes"] | features)
        opened = open_model("first", "cpu")
        n_segments.append(len(build_features(bars, **opened.features).starts))
    assert n_segments[0] > n_segments[1] == 2


def test_bars_of_another_length_are_refused_naming_both_sides(here):
    path = here / "data" / "models" / "first" / "model.safetensors"
    five = load_bars(here / "bars.parquet").frame.iloc[::5]
    with pytest.raises(UserError, match=r"reads 1-minute bars .* these are 5-minute bars"):
        predict(path, five)


def test_causal_answers_of_a_model_trained_on_whole_windows_are_said_to_be(here, capsys):
    assert main(["predict", "bars.parquet", "--model", "first", "-o", "a.parquet", "--causal"]) == 0
    assert "trained on whole windows" in " ".join(capsys.readouterr().out.split())
