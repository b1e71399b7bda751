"""Drift, redundancy and relation to expansions: worked by hand, and at the level of chance where nothing is planted."""

import numpy as np
import pandas as pd
import pytest

from moola_lib.errors import UserError
from moola_lib.features import FeatureTable, build_features
from moola_lib.features.checks import compare_zigzags, describe_features
from moola_lib.features.quality import correlate_features, find_redundant, measure_drift, summarize_drift
from moola_lib.features.relations import relate_to_expansions

HOURS = 23


def make_table(values, names=None, is_valid=None):
    """A feature table around given columns."""
    values = np.asarray(values, np.float32).reshape(len(values), -1)
    n, width = values.shape
    return FeatureTable(
        values=values,
        is_valid=np.ones(n, bool) if is_valid is None else is_valid,
        starts=np.array([0]),
        names=tuple(names or [f"f{k}" for k in range(width)]),
        ranges=np.tile([-np.inf, np.inf], (width, 1)),
        set_id="made",
        version=1,
        is_flip=np.zeros(n, bool),
        options={"extra": []},
    )


def sessions(n, *, first="2024-01-02", step_minutes=15):
    """Stamps of `n` weekday sessions, 18:00 to 17:00 New York, a bar every `step_minutes`."""
    stamps = []
    for date in pd.bdate_range(first, periods=n):
        opening = (date - pd.Timedelta(hours=6)).tz_localize("America/New_York")
        stamps.append(pd.date_range(opening, periods=HOURS * 60 // step_minutes, freq=f"{step_minutes}min"))
    return stamps[0].append(stamps[1:]).tz_convert("UTC")


def months_of(index):
    return ((index.tz_convert("America/New_York") + pd.Timedelta(hours=6)).tz_localize(None)).to_period("M").astype(str)


def day_of(index):
    local = (index.tz_convert("America/New_York") + pd.Timedelta(hours=6)).tz_localize(None).normalize()
    return np.unique(local, return_inverse=True)[1]


def test_the_index_is_the_one_worked_by_hand():
    index = sessions(43)  # 22 trade dates in January, 21 in February
    is_first = np.asarray(months_of(index) == "2024-01")
    n = is_first.sum(), (~is_first).sum()
    x = np.zeros(len(index))
    x[np.flatnonzero(is_first)[: n[0] // 2]] = 1  # half of January, a fifth of February
    x[np.flatnonzero(~is_first)[: n[1] // 5]] = 1
    drift = measure_drift(make_table(x), index)
    by_hand = 0.3 * np.log(0.5 / 0.2) + (0.5 - 0.8) * np.log(0.5 / 0.8)
    assert drift["month"].tolist() == ["2024-01", "2024-02"]
    assert drift["n_rows"].tolist() == list(n)
    np.testing.assert_allclose(drift["psi"], by_hand, rtol=0.01)


def test_without_drift_the_index_is_its_noise():
    index = sessions(120)
    rng = np.random.default_rng(1)
    drift = measure_drift(make_table(rng.normal(size=(len(index), 40))), index)
    assert 0.9 < drift["psi"].mean() / drift["noise"].mean() < 1.1
    n, m = drift["n_rows"], len(index) - drift["n_rows"]
    np.testing.assert_allclose(drift["noise"], 9 * (1 / n + 1 / m), rtol=0.25)  # independent rows: bins - 1
    assert (drift["verdict"] == "stable").all()


def test_noise_knows_that_bars_of_a_day_belong_together():
    index = sessions(120)
    rng = np.random.default_rng(2)
    level = rng.normal(size=(120, 40))[day_of(index)]
    drift = measure_drift(make_table(level + 0.3 * rng.normal(size=level.shape)), index)
    n = drift["n_rows"].median()
    assert drift["psi"].mean() > 10 * 9 / n  # rows taken as independent would call this drift
    assert 0.6 < drift["psi"].mean() / drift["noise"].mean() < 1.4


def test_a_month_that_moved_is_named():
    index = sessions(150)
    rng = np.random.default_rng(3)
    x = rng.normal(size=(len(index), 2))
    x[months_of(index) == "2024-04", 1] *= 2.5
    drift = measure_drift(make_table(x, ["steady", "moved"]), index)
    beyond = drift[drift["verdict"] != "stable"]
    assert beyond[["feature", "month", "verdict"]].to_numpy().tolist() == [["moved", "2024-04", "drifted"]]
    summary = summarize_drift(drift).set_index("feature")
    assert summary.loc["moved", ["where", "beyond", "of", "verdict"]].tolist() == ["2024-04", 1, 7, "drifted"]
    assert summary.loc["steady", "verdict"] == "stable"
    assert (summary["threshold"] == 0.1).all()


def test_a_month_of_a_day_is_not_judged():
    index = sessions(23)  # one of February
    rng = np.random.default_rng(4)
    x = rng.normal(size=23)[day_of(index)]
    drift = measure_drift(make_table(x), index).set_index("month")
    assert drift.loc["2024-02", "psi"] > 1
    assert drift.loc["2024-02", "verdict"] == "too few rows"
    assert np.isnan(summarize_drift(drift.reset_index())["worst"]).all()


def test_prices_drift_however_few_the_days():
    index = sessions(120)
    level = np.cumsum(np.random.default_rng(12).normal(size=len(index)))
    drift = measure_drift(make_table(level), index)
    assert (drift["noise"] > 0.05).all()  # a day's bars stand at one level
    assert (drift["verdict"] == "drifted").mean() > 0.5


def test_hours_count_from_the_opening_in_summer_and_winter():
    index = sessions(40, first="2024-02-20", step_minutes=3)  # the clocks change on 10 March
    local_hour = np.asarray(index.tz_convert("America/New_York").hour)
    x = np.where(local_hour == 9, 5.0, 0.0) + np.random.default_rng(5).normal(size=len(index))
    drift = measure_drift(make_table(x), index, by="hour")
    assert drift["hour"].tolist() == list(range(HOURS))
    assert (drift["n_rows"] == 40 * 20).all()
    assert drift.loc[drift["verdict"] == "by design", "hour"].tolist() == [15]  # 09:00 is 15 hours after 18:00


def test_rows_that_are_not_valid_do_not_count():
    index = sessions(60)
    rng = np.random.default_rng(6)
    x = rng.normal(size=(len(index), 3))
    is_valid = rng.random(len(index)) < 0.8
    clean = make_table(x, is_valid=is_valid)
    junk = make_table(np.where(is_valid[:, None], x, 1e6), is_valid=is_valid)
    inside = rng.random(len(index)) < 0.1
    for measure in (
        lambda table: measure_drift(table, index),
        lambda table: measure_drift(table, index, by="hour"),
        correlate_features,
        find_redundant,
        lambda table: relate_to_expansions(table, inside, index, n_bootstrap=20, n_shifts=5),
    ):
        pd.testing.assert_frame_equal(measure(clean), measure(junk))


@pytest.mark.parametrize("bound", [0.0, 3.0])
def test_values_on_a_clip_have_a_bin_to_themselves(bound):
    index = sessions(43)
    rng = np.random.default_rng(7)
    is_first = np.asarray(months_of(index) == "2024-01")
    x = rng.uniform(0.1, 2.9, len(index))
    x[rng.random(len(index)) < np.where(is_first, 0.3, 0.6)] = bound
    drift = measure_drift(make_table(x), index)
    p, q = (x[is_first] == bound).mean(), (x[~is_first] == bound).mean()
    by_hand = (p - q) * np.log(p / q) + (q - p) * np.log((1 - p) / (1 - q))  # the other bins share what is left
    np.testing.assert_allclose(drift["psi"], by_hand, atol=2 * drift["noise"].max())
    assert drift["noise"].max() < 0.05 * by_hand


def test_a_constant_feature_does_not_drift():
    index = sessions(43)
    drift = measure_drift(make_table(np.ones(len(index))), index)
    assert (drift["psi"] < 1e-5).all() and (drift["verdict"] == "stable").all()


def test_a_single_month_has_nothing_to_be_compared_with():
    index = sessions(3)
    drift = measure_drift(make_table(np.random.default_rng(1).normal(size=len(index))), index)
    assert drift["verdict"].tolist() == ["too few rows"] and drift["psi"].isna().all()
    assert summarize_drift(drift)["verdict"].tolist() == ["too few rows"]


def test_what_cannot_be_compared_is_refused():
    index = sessions(3)
    table = make_table(np.zeros(len(index)))
    with pytest.raises(UserError, match="drift by 'week' is not known"):
        measure_drift(table, index, by="week")
    with pytest.raises(UserError, match=f"7 stamps are given for a table of {len(index)} rows"):
        measure_drift(table, index[:7])
    with pytest.raises(UserError, match="no row of the table is valid"):
        measure_drift(make_table(np.zeros(len(index)), is_valid=np.zeros(len(index), bool)), index)


def test_copies_sums_and_constants_are_told_apart():
    rng = np.random.default_rng(8)
    a, b, c = rng.normal(size=(3, 4000))
    names = ["a", "b", "a_bent", "b_plus_c", "c", "same", "own"]
    x = np.stack([a, b, np.exp(3 * a), b + c, c, np.ones(4000), rng.normal(size=4000)], axis=1)
    found = find_redundant(make_table(x, names)).set_index("feature")
    assert found["verdict"].to_dict() == {
        "a": "repeats a_bent",
        "b": "follows from others",
        "a_bent": "repeats a",
        "b_plus_c": "follows from others",
        "c": "follows from others",
        "same": "constant",
        "own": "of its own",
    }
    assert found.loc["b_plus_c", "explained"] == pytest.approx(1)
    assert found.loc["own", "explained"] < 0.01
    assert np.isnan(found.loc["same", "correlation"])


def test_the_body_follows_from_open_and_close(table):
    found = find_redundant(table).set_index("feature")
    assert found.loc[["open_norm", "close_norm", "body_pct"], "verdict"].eq("follows from others").all()
    assert found.loc["range_z", "verdict"] == "of its own"


def planted(n_days=60, seed=9):
    """Stamps, labels in runs of eight, and three features: one that knows, one that does not, one constant."""
    index = sessions(n_days)
    rng = np.random.default_rng(seed)
    inside = np.zeros(len(index), bool)
    for first in rng.choice(len(index) - 10, len(index) // 100, replace=False):
        inside[first : first + 8] = True
    x = np.stack([inside + rng.normal(size=len(index)), rng.normal(size=len(index)), np.ones(len(index))], axis=1)
    return index, inside, make_table(x, ["knows", "noise", "same"])


def test_figures_are_the_textbook_ones():
    index, inside, table = planted()
    found = relate_to_expansions(table, inside, index, n_bootstrap=200, n_shifts=50).set_index("feature")
    x = table.values[:, 0].astype(float)
    assert found.loc["knows", "correlation"] == pytest.approx(np.corrcoef(x, inside)[0, 1], abs=1e-12)
    auc = (x[inside][:, None] > x[~inside][None]).mean()
    assert found.loc["knows", "auc"] == pytest.approx(auc, abs=0.003)
    assert found.loc["knows", "auc_low"] < auc < found.loc["knows", "auc_high"]
    assert found["verdict"].to_dict() == {"knows": "related", "noise": "as chance", "same": "as chance"}
    assert np.isnan(found.loc["same", "correlation"]) and found.loc["same", "auc"] == 0.5


def test_the_control_is_the_labels_moved_around():
    index, inside, table = planted(n_days=6)
    found = relate_to_expansions(table, inside, index, n_bootstrap=5, n_shifts=1).set_index("feature")
    x, n = table.values[:, 0].astype(float), len(index)
    moved = [np.corrcoef(x, np.roll(inside, k))[0, 1] for k in range(n // 20, n - n // 20)]
    assert np.abs(np.array(moved) - found.loc["knows", "control_low"]).min() < 1e-9
    assert found.loc["knows", "correlation"] > max(moved)


def test_days_not_bars_make_the_interval():
    index = sessions(60)
    rng = np.random.default_rng(10)
    x = rng.normal(size=60)[day_of(index)] + 0.1 * rng.normal(size=len(index))
    inside = (rng.random(60) < 0.3)[day_of(index)]
    found = relate_to_expansions(make_table(x), inside, index).iloc[0]
    by_bars = 4 / np.sqrt(len(index))  # full width of an interval that took bars as independent
    assert found["high"] - found["low"] > 4 * by_bars
    assert found["verdict"] == "as chance"


def test_a_weak_relation_is_called_weak():
    index = sessions(120)
    rng = np.random.default_rng(11)
    inside = rng.random(len(index)) < 0.3
    found = relate_to_expansions(make_table(0.1 * inside + rng.normal(size=len(index))), inside, index).iloc[0]
    assert found["auc_low"] > 0.5 and found["auc"] < 0.55
    assert found["verdict"] == "weak"


def test_only_known_bars_count():
    index, inside, table = planted()
    is_known = day_of(index) < 30
    part = make_table(table.values[is_known], table.names)
    expected = relate_to_expansions(part, inside[is_known], index[is_known], n_bootstrap=30, n_shifts=9)
    garbled = np.where(is_known, inside, ~inside)
    found = relate_to_expansions(table, garbled, index, is_known=is_known, n_bootstrap=30, n_shifts=9)
    pd.testing.assert_frame_equal(found, expected)


def test_equal_seeds_give_equal_intervals():
    index, inside, table = planted(n_days=20)
    relate = lambda seed: relate_to_expansions(table, inside, index, n_bootstrap=50, n_shifts=20, seed=seed)  # noqa: E731
    pd.testing.assert_frame_equal(relate(1), relate(1))
    assert not relate(1).equals(relate(2))


def test_what_cannot_be_related_is_refused():
    index, inside, table = planted(n_days=5)
    with pytest.raises(UserError, match="is_inside has 3 entries"):
        relate_to_expansions(table, inside[:3], index)
    with pytest.raises(UserError, match="both kinds are needed"):
        relate_to_expansions(table, np.zeros(len(index), bool), index)
    with pytest.raises(UserError, match="one trade date"):
        relate_to_expansions(table, inside, index, is_known=day_of(index) == day_of(index)[inside][0])


def test_density_is_judged_by_its_threshold():
    x = np.zeros((100, 2))
    x[:, 0] = 1
    x[:40, 1] = 1
    found = describe_features(make_table(x, ["full", "thin"])).set_index("feature")
    assert found["verdict"].to_dict() == {"full": "dense", "thin": "sparse"}
    assert (found["threshold"] == 0.5).all()


def test_swings_are_told_from_noise(market):
    found = compare_zigzags(market.bars.frame).set_index("rule")
    assert found.loc["legacy", "verdict"] == "noise"
    shares = found.loc[found.index != "legacy", "flip_share"]
    assert (shares.diff().dropna() < 0).all()  # a larger k turns less often
    assert (found.loc[shares.index, "verdict"] == np.where(shares <= 0.25, "swings", "noise")).all()
    again = build_features(market.bars, k=3.0).is_flip.mean()
    assert found.loc["primary, k = 3", "flip_share"] == pytest.approx(again)
