"""Trials are logged whole, counted by configuration, and their luck is said."""

import json
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from moola_lib.errors import UserError
from moola_lib.evaluation.trials import count_trials, describe_trials, log_trial, read_trials

FACTS = {"run_id": "r1", "notebook": "04_fine_tuning"}


def log(path, seed=17, **facts):
    return log_trial(path, **FACTS | facts, parameters={"seed": seed}, figures={"hit3": np.float32(0.5), "x": np.nan})


def test_a_trial_is_one_line_of_plain_json(tmp_path):
    path = tmp_path / "data" / "trials.jsonl"
    line = log(path)
    assert [json.loads(text) for text in path.read_text().splitlines()] == [line] == read_trials(path)
    assert set(line) == {"when", "run_id", "notebook", "fingerprint", "parameters", "figures"}
    assert line["figures"] == {"hit3": 0.5, "x": None} and line["when"].endswith("+00:00")


def test_the_same_configuration_counts_once(tmp_path):
    path = tmp_path / "trials.jsonl"
    assert count_trials(path) == 0
    for seed in (1, 2, 1):
        log(path, seed)
    log(path, 1, notebook="03_pretraining")
    assert len(read_trials(path)) == 4 and count_trials(path) == 6  # two figures each
    assert count_trials(path, notebook="04_fine_tuning") == 4
    one, two = ({"a": 1, "b": 2}, {"b": 2, "a": 1})
    facts = FACTS | {"figures": {}}
    prints = {log_trial(path, parameters=each, **facts)["fingerprint"] for each in (one, two)}
    assert len(prints) == 1


def test_half_a_line_costs_no_other(tmp_path):
    path = tmp_path / "trials.jsonl"
    log(path, 1)
    with open(path, "a") as stream:
        stream.write('{"when": "20')
    log(path, 2)
    assert [trial["parameters"]["seed"] for trial in read_trials(path)] == [1, 2]


def test_writers_at_once_lose_nothing(tmp_path):
    path = tmp_path / "trials.jsonl"
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda seed: log(path, seed), range(40)))
    assert sorted(trial["parameters"]["seed"] for trial in read_trials(path)) == list(range(40))


def test_a_place_that_cannot_be_written_is_a_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write"):
        log(tmp_path / "file" / "trials.jsonl")


def test_luck_is_said_where_there_was_a_choice():
    assert "nothing was chosen" in describe_trials(1, 174)
    assert "20 ways to train" in describe_trials(20, 174) and "7 points" in describe_trials(20, 174)
