"""The id of a feature set leads back to the options that made it."""

import pytest

from moola_lib.errors import UserError
from moola_lib.features.set_ids import options_of
from moola_lib.features.sets import describe_set


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"k": 1.2},
        {"k": 1e-5},
        {"k": 1e9},
        {"zigzag": "legacy"},
        {"extra": ("consol_proxy", "position")},
        {"feature_set": "relative_transform11", "extra": ("position",)},
        {"feature_set": "ohlc4"},
    ],
)
def test_an_id_makes_its_set_again(options):
    described = describe_set(**options)
    again = describe_set(**options_of(described["set_id"]))
    assert again["set_id"] == described["set_id"] and again["names"] == described["names"]


@pytest.mark.parametrize(
    ("set_id", "sentence"),
    [
        ("bare2.v1", "cannot be made from bars .feature set 'bare2' is not known"),
        ("relativity11.v0/primary/k=3", "is not made here any more, relativity11.v1/primary/k=3 is"),
        ("relativity11.v1/primary/k=3+volume", "extra column 'volume' is not known"),
        ("nonsense", "'nonsense' is not the id of a feature set"),
        ("relativity11.v1/primary/k=", "is not the id of a feature set"),
    ],
)
def test_other_ids_are_refused(set_id, sentence):
    with pytest.raises(UserError, match=sentence):
        options_of(set_id)
