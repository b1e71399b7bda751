"""Keys in what a run wrote: found wherever they stand, named by kind, and never repeated."""

import pytest

from moola_lib.errors import UserError
from moola_lib.runs.leaks import find_leaks, redact, refuse_secret_parameters, secret_values

VALUE = 'p<ss"w/rd-17'
ENVIRONMENT = {"DATABASE_PASSWORD": VALUE, "HOME": "/home/somebody", "PIN_KEY": "1234", "SSH_KEY": "/tmp"}


@pytest.mark.parametrize(
    "text", [VALUE, "p&lt;ss&quot;w/rd-17", '{"a": "p<ss\\"w/rd-17"}', "https://x/?k=p%3Css%22w%2Frd-17"]
)
def test_a_value_is_found_however_it_is_written(tmp_path, text):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "page.html").write_text(f"one\ntwo {text}\n")
    (tmp_path / "empty").touch()
    (leak,) = find_leaks([tmp_path], ENVIRONMENT)
    assert str(leak) == f"{tmp_path / 'a' / 'page.html'}, line 2: the value of $DATABASE_PASSWORD"


def test_a_value_is_found_in_a_binary_file(tmp_path):
    (tmp_path / "weights").write_bytes(b"\0\1\2" * 5000 + VALUE.encode())
    (leak,) = find_leaks([tmp_path / "weights"], ENVIRONMENT)
    assert leak.line is None and VALUE not in str(leak)


# Written in two pieces, so that no scanner of sources takes them for keys.
@pytest.mark.parametrize(
    ("key", "kind"),
    [
        ("AKIA" + "ABCDEFGHIJKLMNOP", "an AWS access key"),
        ("ghp_" + "a1B2" * 9, "a GitHub token"),
        ("hf_" + "aBcD" * 9, "a Hugging Face token"),
        ("db-" + "a" * 28 + "1", "a Databento key"),
        ("sk-proj-" + "aB3d" * 10, "an OpenAI or Anthropic key"),
        ("-----BEGIN " + "RSA PRIVATE KEY-----", "a private key"),
    ],
)
def test_a_key_is_known_by_its_shape(tmp_path, key, kind):
    path = tmp_path / "run.log"
    path.write_text(f"key = '{key}'\n")
    assert [leak.kind for leak in find_leaks([path], {})] == [kind]
    assert key not in redact({"a": [f"it was {key}!"]}, {})["a"][0]


def test_ordinary_words_and_hashes_are_not_keys(tmp_path):
    text = "risk-adjusted-return-of-a-window-of-105-bars sk-learn-and-all-the-other-packages-in-lower-case-1 "
    (tmp_path / "a").write_text(text + "0123456789abcdef" * 4 + " 1234 /home/somebody")
    assert find_leaks([tmp_path], ENVIRONMENT) == []
    assert secret_values(ENVIRONMENT) == {"DATABASE_PASSWORD": VALUE}


def test_a_parameter_that_holds_a_key_is_refused_without_repeating_it(monkeypatch):
    monkeypatch.setenv("SERVICE_TOKEN", VALUE)
    with pytest.raises(UserError, match="parameter symbol of 01_first holds a key") as caught:
        refuse_secret_parameters({"01_first": {"seed": 7, "symbol": f"NQ {VALUE}"}})
    assert VALUE not in str(caught.value)
    refuse_secret_parameters({"01_first": {"seed": 7, "symbol": "NQ", "fractions": [0.7, 0.3]}})


def test_a_value_longer_than_any_path_is_a_secret():
    assert secret_values({"SOME_TOKEN": "a1B2%" * 200}).keys() == {"SOME_TOKEN"}
