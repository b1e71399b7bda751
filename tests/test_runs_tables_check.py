"""`moola features --verify`: every check fails on what it is for, and nonsense is one sentence."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from stored_tables import put, spoil_array, spoil_json, verdicts

from moola_lib.cli import main
from moola_lib.errors import UserError
from moola_lib.features import FeatureTable
from moola_lib.runs.tables import write_table
from moola_lib.runs.tables_check import verify_table


@pytest.fixture
def copy(stored, tmp_path):
    """A copy of `stored` to spoil."""
    return Path(shutil.copytree(stored, tmp_path / "copy"))


def test_a_sound_table_passes_every_check(series, stored):
    found = verdicts(stored, source=series)
    assert set(found.values()) == {"PASS"} and "values from the bars" in found
    without = verdicts(stored)
    assert without.pop("bars") == "–" and set(without.values()) == {"PASS"}


@pytest.mark.parametrize("feature_set", ["relative_transform11", "ohlc4"])
def test_a_check_that_does_not_apply_says_so(series, tmp_path, feature_set):
    write_table(series, tmp_path / "table", options={"feature_set": feature_set})
    frame = verify_table(tmp_path / "table").set_index("check")
    assert frame.loc["expansion_proxy", ["value", "verdict"]].tolist() == [f"{feature_set} has none", "–"]
    assert set(frame["verdict"]) == {"PASS", "–"}


def test_a_table_saved_without_splits_says_so(market, table, tmp_path):
    table.save(tmp_path / "table", bars_fingerprint=market.bars.fingerprint)
    found = verdicts(tmp_path / "table")
    assert found["splits"] == "–" and "FAIL" not in found.values()


def put_last_name(card):
    card["names"][-1] = "other"


def flip_low_bit(folder):
    content = bytearray((folder / "values.npy").read_bytes())
    content[-4] ^= 1  # of the last float's mantissa: no other check without the bars sees it
    (folder / "values.npy").write_bytes(content)


SPOILS = {
    "arrays": flip_low_bit,
    "finite": lambda f: spoil_array(f, "values", put((500, 3), np.nan)),
    "ranges": lambda f: spoil_array(f, "values", put((500, 3), 1.5)),
    "values from the bars": lambda f: spoil_array(f, "values", put((500, 3), 0.123)),
    "shape": lambda f: spoil_array(f, "values", lambda values: values.astype(np.float64)),
    "values not 0": lambda f: spoil_array(f, "values", put((slice(None), 4), 0.0)),
    "valid rows": lambda f: spoil_array(f, "is_valid", put(slice(0, 12_000), False)),
    "first rows of segments": lambda f: spoil_array(f, "is_valid", put(3, True)),
    "metadata": lambda f: spoil_json(f, "metadata.json", lambda card: card.update(valid_share=0.5)),
    "names": lambda f: spoil_json(f, "metadata.json", lambda card: card["names"].reverse()),
    "expansion_proxy": lambda f: spoil_json(f, "metadata.json", put_last_name),
    "set and version": lambda f: spoil_json(f, "metadata.json", lambda card: card.update(version=7)),
    "splits do not overlap": lambda f: spoil_json(
        f, "splits.json", lambda splits: splits["parts"][0].update(last_place=splits["parts"][1]["first_place"])
    ),
    "splits keep the embargo": lambda f: spoil_json(f, "splits.json", lambda splits: splits.update(embargo_bars=5000)),
    "windows in splits": lambda f: spoil_json(
        f, "splits.json", lambda splits: splits["parts"][2].update(n_windows=splits["parts"][2]["n_windows"] + 1)
    ),
}


@pytest.mark.parametrize("check", SPOILS)
def test_each_check_fails_on_what_it_is_for(series, copy, check, capsys):
    SPOILS[check](copy)
    assert verdicts(copy, source=series)[check] == "FAIL"
    assert main(["features", "--verify", str(copy), "--bars", str(series)]) == 3
    assert "FAIL" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["values", "is_valid", "starts", "is_flip"])
def test_a_flipped_bit_is_found_without_the_bars(copy, name):
    content = bytearray((copy / f"{name}.npy").read_bytes())
    content[-4] ^= 1
    (copy / f"{name}.npy").write_bytes(content)
    frame = verify_table(copy).set_index("check")
    assert frame.loc["arrays", ["value", "verdict"]].tolist() == [f"changed: {name}", "FAIL"]
    if name == "values":
        assert (frame["verdict"] == "FAIL").sum() == 1


def test_a_table_of_an_earlier_version_has_no_fingerprints(copy):
    spoil_json(copy, "metadata.json", lambda card: card.pop("array_fingerprints"))
    found = verdicts(copy)
    assert found["arrays"] == "–" and "FAIL" not in found.values()


@pytest.mark.parametrize("name", ["values.npy", "is_valid.npy", "starts.npy", "metadata.json", "splits.json"])
@pytest.mark.parametrize("damage", ["gone", "cut"])
def test_a_folder_that_cannot_be_read_is_one_sentence(copy, name, damage, capsys):
    path = copy / name
    path.unlink() if damage == "gone" else path.write_bytes(path.read_bytes()[:50])
    code = main(["features", "--verify", str(copy)])
    captured = capsys.readouterr()
    if (name, damage) == ("splits.json", "gone"):
        assert code == 0 and "there is no splits.json" in captured.out
    else:
        assert code == 2 and captured.err.startswith("moola: ") and captured.err.count("\n") == 1


@pytest.mark.parametrize("card", ["[]", "{}", '{"set_id": 1}'])
def test_metadata_of_something_else_is_refused(copy, card):
    (copy / "metadata.json").write_text(card)
    for read in (FeatureTable.load, verify_table):
        with pytest.raises(UserError, match="build the features again"):
            read(copy)


@pytest.mark.parametrize("name", ["metadata.json", "splits.json"])
@pytest.mark.parametrize("wrong", [None, "x", -1, 0.5, [], [None], {}, {"x": 1}], ids=repr)
def test_any_entry_may_be_nonsense(copy, name, wrong):
    for key in json.loads((copy / name).read_text()):
        text = (copy / name).read_text()
        spoil_json(copy, name, lambda value, key=key: value.update({key: wrong}))
        for read in (FeatureTable.load, verify_table):
            try:
                read(copy)
            except UserError as error:
                assert str(copy) in str(error)
        (copy / name).write_text(text)


def test_arrays_of_two_tables_are_refused(copy):
    spoil_array(copy, "is_valid", lambda is_valid: is_valid[:-1])
    for read in (FeatureTable.load, verify_table):
        with pytest.raises(UserError, match="build the features again"):
            read(copy)
