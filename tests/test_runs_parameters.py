"""Parameters: every mistake is one sentence naming the source, the key and what is allowed."""

from pathlib import Path
from typing import Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from moola_lib.errors import UserError
from moola_lib.labels.table import INNER_BARS
from moola_lib.runs.parameters import FineTuning, Pretraining
from moola_lib.runs.parameters_check import (
    check_parameters,
    gather_parameters,
    load_model,
    read_yaml,
)


class Toy(BaseModel):
    model_config = ConfigDict(extra="forbid")

    learning_rate: float = Field(1e-3, gt=0, le=1)
    n_epochs: int = Field(5, ge=1)
    device: Literal["auto", "cpu", "cuda"] = "auto"
    is_strict: bool = False
    clip: float | None = None
    upstream_run: str | None = None
    bars: str | None = Field(None, json_schema_extra={"path": True})
    others: list[str] = Field([], json_schema_extra={"path": True})
    lengths: list[int] = [1, 2]

    @field_validator("lengths")
    @classmethod
    def _ordered(cls, value):
        if value != sorted(value):
            raise ValueError("lengths must rise")
        return value


class Other(BaseModel):
    model_config = ConfigDict(extra="forbid")

    n_epochs: int = 9
    width: int = 4


class Range(BaseModel):
    model_config = ConfigDict(extra="forbid")

    low: int = 3
    high: int = Field(30, le=100)

    @model_validator(mode="after")
    def _in_order(self):
        if self.low > self.high:
            raise ValueError(f"low {self.low} is above high {self.high}")
        return self


MODELS = {"01_toy": Toy, "02_other": Other}


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (
            {"learning_rat": 1},
            ["'learning_rat' is not a parameter", "did you mean 'learning_rate'"],
        ),
        ({"learning_rate": "fast"}, ["learning_rate = 'fast'", "a number above 0 and at most 1"]),
        ({"learning_rate": 2}, ["learning_rate = 2", "at most 1"]),
        ({"n_epochs": 0}, ["n_epochs = 0", "a whole number at least 1"]),
        ({"n_epochs": 1.5}, ["n_epochs = 1.5", "a whole number"]),
        ({"n_epochs": True}, ["n_epochs = True", "a whole number"]),
        ({"device": "cud"}, ["device = 'cud'", "one of auto, cpu, cuda", "did you mean 'cuda'"]),
        ({"is_strict": "maybe"}, ["is_strict = 'maybe'", "true or false"]),
        ({"clip": "x"}, ["clip = 'x'", "a number or null"]),
        ({"lengths": [3, 1]}, ["lengths = [3, 1]", "lengths must rise"]),
        ({"n_epochs": 0, "device": 3}, ["n_epochs = 0", "device = 3"]),
    ],
)
def test_a_mistake_names_source_key_value_and_what_is_allowed(values, words):
    with pytest.raises(UserError) as caught:
        check_parameters(Toy, values, "params/x.yaml")
    sentence = str(caught.value)
    assert sentence.startswith("params/x.yaml: ")
    assert "\n" not in sentence
    for word in words:
        assert word in sentence


@pytest.mark.parametrize(
    ("values", "key", "expected"),
    [
        ({"learning_rate": "1e-3"}, "learning_rate", 0.001),
        ({"n_epochs": "1e2"}, "n_epochs", 100),
        ({"is_strict": "true"}, "is_strict", True),
        ({"clip": None}, "clip", None),
        ({"clip": "2.5"}, "clip", 2.5),
        ({"upstream_run": "true"}, "upstream_run", "true"),
    ],
)
def test_text_becomes_what_the_field_wants(values, key, expected):
    value = getattr(check_parameters(Toy, values, "x"), key)
    assert value == expected
    assert type(value) is type(expected)


def test_yaml_files(tmp_path):
    path = tmp_path / "a.yaml"
    with pytest.raises(UserError, match="cannot read"):
        read_yaml(path)
    path.write_text("- 1\n- 2\n")
    with pytest.raises(UserError, match="must be a mapping"):
        read_yaml(path)
    path.write_text("a: [1\n")
    with pytest.raises(UserError, match="not valid YAML") as caught:
        read_yaml(path)
    assert "\n" not in str(caught.value)
    path.write_text("# nothing\n")
    assert read_yaml(path) == {}


def test_models_load_lazily_by_name():
    assert load_model("01_a", {"01_a": "pathlib:Path"}) is Path
    with pytest.raises(UserError, match="02_b has no parameter model"):
        load_model("02_b", {"01_a": "pathlib:Path"})


def test_each_path_of_a_list_is_made_absolute_and_must_exist(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.parquet").touch()
    options = {"root": tmp_path, "profile": "quick"}
    given, _ = gather_parameters(["01_toy"], MODELS, **options, pairs=[("others", "[a.parquet]")])
    assert given["01_toy"] == {"others": [str(tmp_path / "a.parquet")]}
    with pytest.raises(UserError, match=r"others: .*b.parquet does not exist"):
        gather_parameters(["01_toy"], MODELS, **options, pairs=[("others", "[a.parquet, b.parquet]")])


def test_profile_then_file_then_pairs(tmp_path, monkeypatch):
    folder = tmp_path / "params" / "research"
    folder.mkdir(parents=True)
    (folder / "01_toy.yaml").write_text("n_epochs: 20\nclip: 1.0\nbars: data/a.parquet\n")
    file = tmp_path / "mine.yaml"
    file.write_text("clip: 2\nwidth: 4\nlearning_rate: 1e-2\n")
    caller = tmp_path / "caller"
    caller.mkdir()
    monkeypatch.chdir(caller)
    options = {"root": tmp_path, "profile": "research", "file": file}
    with pytest.raises(UserError, match=r"bars: .*data/a.parquet does not exist"):
        gather_parameters(["01_toy", "02_other"], MODELS, **options)
    for name in ("data/a.parquet", "caller/b.parquet"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    given, resolved = gather_parameters(["01_toy", "02_other"], MODELS, **options, pairs=[("n_epochs", "30")])
    bars = str(tmp_path / "data" / "a.parquet")  # a profile's paths count from the root
    assert given["01_toy"] == {"n_epochs": 30, "clip": 2.0, "learning_rate": 0.01, "bars": bars}
    assert given["02_other"] == {"n_epochs": 30}  # width equals its default
    assert resolved["02_other"] == {"n_epochs": 30, "width": 4}
    given, _ = gather_parameters(["01_toy"], MODELS, root=tmp_path, pairs=[("bars", "b.parquet")])
    assert given["01_toy"]["bars"] == str(caller / "b.parquet")


def test_a_name_must_be_known_to_some_notebook_of_the_chain(tmp_path):
    with pytest.raises(UserError, match=r"'widht' is not a parameter of any.*'width'"):
        gather_parameters(["01_toy", "02_other"], MODELS, root=tmp_path, pairs=[("widht", "1")])
    with pytest.raises(UserError, match="'width' is not a parameter of 01_toy"):
        gather_parameters(["01_toy"], MODELS, root=tmp_path, pairs=[("width", "1")])


def test_a_pair_for_a_text_field_stays_text(tmp_path):
    with pytest.raises(UserError, match="there is no run '20261120'"):
        gather_parameters(["01_toy"], MODELS, root=tmp_path, pairs=[("upstream_run", "20261120")])
    (tmp_path / "data" / "artifacts" / "20261120").mkdir(parents=True)
    given, _ = gather_parameters(["01_toy"], MODELS, root=tmp_path, pairs=[("upstream_run", "20261120")])
    assert given["01_toy"] == {"upstream_run": "20261120"}
    with pytest.raises(UserError, match="-p: n_epochs = 'two'"):
        gather_parameters(["01_toy"], MODELS, root=tmp_path, pairs=[("n_epochs", "two")])


def test_what_holds_between_parameters_is_judged_when_all_are_given(tmp_path):
    def gather(*pairs):
        return gather_parameters(["03_range"], {"03_range": Range}, root=tmp_path, pairs=pairs)[1]["03_range"]

    assert gather(("low", "40"), ("high", "50")) == {"low": 40, "high": 50}
    folder = tmp_path / "params" / "quick"
    folder.mkdir(parents=True)
    (folder / "03_range.yaml").write_text("low: 60")
    assert gather(("high", "70")) == {"low": 60, "high": 70}
    with pytest.raises(UserError, match=r"^03_range: low 60 is above high 50$"):
        gather(("high", "50"))
    with pytest.raises(UserError, match=r"^-p: high = 101 is not allowed: give a whole number at most 100$"):
        gather(("high", "101"))


def test_a_resumed_run_keeps_what_it_was_given(tmp_path):
    before = {"01_toy": {"n_epochs": 7, "clip": 2.0}}
    pairs = [("clip", "3")]
    given, _ = gather_parameters(["01_toy"], MODELS, root=tmp_path, pairs=pairs, before=before)
    assert given["01_toy"] == {"n_epochs": 7, "clip": 3.0}


def test_starts_are_looked_for_where_labels_may_start():
    assert {FineTuning().start_range, Pretraining().start_range} == {INNER_BARS}
