"""What stamps mean: the zone, the side and the length of a bar, proven by the file or asked for."""

import re

import numpy as np
import pandas as pd
import pytest
from vendor_files import ZONE, facts, firstrate, naive, semicolons

from moola_lib.errors import UserError
from moola_lib.market import load_bars
from moola_lib.market.bars import clean_bars
from moola_lib.market.stamps import check_zone, localise, prove_mark, prove_zone


@pytest.fixture(scope="module")
def week():
    """Starts of the bars of CME's week of 2024-03-10, clocks having gone forward on its eve; UTC nanoseconds."""
    days = pd.date_range("2024-03-10 18:00", periods=5, tz=ZONE)
    return np.concatenate([pd.date_range(day, periods=1380, freq="min").as_unit("ns").asi8 for day in days])


def wall_times(instants, zone):
    return pd.DatetimeIndex(instants, tz="UTC").tz_convert(zone).tz_localize(None).asi8


@pytest.mark.parametrize("zone", [ZONE, "America/Chicago", "UTC", "Europe/Berlin", "Asia/Tokyo"])
@pytest.mark.parametrize("symbol", ["NQ", "NQH4", "NQ=F", "CME_MINI:NQ1!", "MES", "NQ.c.0"])
def test_daily_breaks_prove_the_zone_of_index_futures(week, zone, symbol):
    walls = wall_times(week, zone)
    proven, evidence = prove_zone(walls, symbol)
    np.testing.assert_array_equal(localise(walls, proven, "test"), week)
    assert evidence.startswith("4 daily breaks")


@pytest.mark.parametrize("symbol", [None, "EURUSD", "SPY", "NQX", "CL"])
def test_of_other_series_nothing_is_known(week, symbol):
    assert prove_zone(wall_times(week, "UTC"), symbol) == (None, "")


def test_too_few_breaks_or_a_bar_inside_one_prove_no_zone(week):
    assert prove_zone(week[: 3 * 1380], "NQ") == (None, "")
    assert prove_zone(np.sort(np.r_[week, week[1379] + 30 * 60 * 10**9]), "NQ") == (None, "")


def test_zones_that_agree_on_the_breaks_but_not_on_the_instants_prove_nothing(week):
    # New York's clocks went forward after the first week: its second, one day long, has no break to tell
    before = week - 7 * 86400 * 10**9 + 3600 * 10**9
    walls = wall_times(np.r_[before, week[:600]], ZONE)
    assert prove_zone(walls[: len(before)], "NQ")[0] == ZONE
    assert prove_zone(walls, "NQ") == (None, "")


@pytest.mark.parametrize("shift", [0, 1])
def test_recurring_closings_prove_the_mark(week, shift):
    mark, evidence = prove_mark(week + shift * 60 * 10**9)
    assert mark == ["start", "end"][shift]
    assert evidence.startswith("4 closings, mostly from ")


def test_closings_that_disagree_or_are_few_prove_no_mark(week):
    assert prove_mark(week[: 3 * 1380]) == (None, "")
    without_last_minute = week[week // (60 * 10**9) % 1440 != 20 * 60 + 59]
    assert prove_mark(without_last_minute) == (None, "")
    auction = np.sort(np.r_[week, week[1379::1380] + 60 * 10**9])  # a start-stamped print at the closing second
    assert prove_mark(auction) == (None, "")


def test_a_proof_is_used_and_reported(tools, week, tmp_path):
    frame = tools.walk_frame(pd.DatetimeIndex(week + 60 * 10**9, tz="UTC"))
    path = tmp_path / "bars.csv"
    path.write_text(semicolons(frame), newline="")
    bars = load_bars(path, symbol="NQH4")
    np.testing.assert_array_equal(bars.frame.index.asi8, week)
    proof = "end (proven: 4 closings, mostly from a bar stamped 17:00 to one stamped 18:01"
    assert facts(bars)["stamps mark"].startswith(proof)
    assert facts(bars)["zone"].startswith(f"{ZONE} (proven: 4 daily breaks")
    with pytest.raises(UserError, match="stamp='start' contradicts the stamps, which mark the end of a bar"):
        load_bars(path, symbol="NQH4", stamp="start")
    with pytest.raises(UserError, match=f"tz='America/Chicago' contradicts the stamps, which are in {ZONE}"):
        load_bars(path, symbol="NQH4", tz="America/Chicago")
    stated = load_bars(path, symbol="NQH4", stamp="end", tz="Etc/GMT+4")
    pd.testing.assert_frame_equal(stated.frame, bars.frame)


def test_a_stated_zone_must_agree_on_every_bar_not_only_on_the_first_and_last(tools, tmp_path):
    sessions = [
        pd.Timestamp(f"2024-{day} 18:00", tz=ZONE) for day in ("03-05", "03-06", "03-07", "03-11", "03-12", "03-13")
    ]
    stamps = [pd.date_range(first, periods=1380, freq="min") for first in sessions]
    frame = tools.walk_frame(stamps[0].append(stamps[1:]).tz_convert("UTC"))
    path = tmp_path / "bars.csv"
    path.write_text(firstrate(frame))
    bars = load_bars(path, symbol="NQ", tz=ZONE)
    assert (bars.frame.index == frame.index).all() and "(stated; 4 daily breaks" in facts(bars)["zone"]
    for fixed in ("Etc/GMT+5", "Etc/GMT+4"):  # right before the clocks went forward, and after
        with pytest.raises(UserError, match=f"tz='{re.escape(fixed)}' contradicts the stamps"):
            load_bars(path, symbol="NQ", tz=fixed)


@pytest.mark.parametrize("far", ["1677-09-22 00:00:00", "2262-04-11 00:00:00", "1899-12-31 23:59:00"])
def test_stamps_of_far_centuries_are_refused(plain_frame, tmp_path, far):
    text = firstrate(plain_frame).replace("2024-03-05 10:39:00", far)
    (tmp_path / "bars.csv").write_text(text)
    with pytest.raises(UserError, match=f"{far[:4]}.* cannot be that of a bar"):
        load_bars(tmp_path / "bars.csv", symbol="NQ", tz="Asia/Tokyo")


def test_our_own_stamps_stay_where_they_are_whatever_they_look_like(tools, week, tmp_path):
    frame = tools.walk_frame(pd.DatetimeIndex(week + 60 * 10**9, tz="UTC"))
    frame.rename_axis("ts").to_parquet(tmp_path / "bars.parquet")
    bars = load_bars(tmp_path / "bars.parquet")
    assert (bars.frame.index == frame.index).all()
    evidence = "closings, mostly from a bar stamped 21:00 to one stamped 22:01 speak for the end"
    assert evidence in facts(bars)["stamps mark"]
    np.testing.assert_array_equal(load_bars(tmp_path / "bars.parquet", stamp="end").frame.index.asi8, week)


def test_the_hour_that_does_not_exist_is_refused(tools, tmp_path):
    walls = pd.date_range("2024-03-10 01:50", periods=20, freq="min")
    frame = tools.walk_frame(walls.tz_localize("UTC"))
    frame.set_axis(walls).rename_axis("ts").to_csv(tmp_path / "bars.csv")
    with pytest.raises(UserError, match="row 11: 2024-03-10 02:00:00 does not exist in America/New_York"):
        load_bars(tmp_path / "bars.csv", tz=ZONE)
    assert len(load_bars(tmp_path / "bars.csv", tz="Etc/GMT+5")) == 20


def test_the_repeated_hour_is_resolved_by_order_alone(tools, tmp_path):
    instants = pd.date_range("2024-11-03 00:30", periods=200, freq="min", tz=ZONE).tz_convert("UTC")
    frame = tools.walk_frame(instants)
    local = frame.set_axis(naive(frame, ZONE)).rename_axis("ts")
    local.to_csv(tmp_path / "bars.csv")
    assert (load_bars(tmp_path / "bars.csv", tz=ZONE).frame.index == instants).all()
    local[~local.index.duplicated()].to_csv(tmp_path / "bars.csv")  # the hour stands there once: which one?
    with pytest.raises(UserError, match=r"row 31: 2024-11-03 01:00:00 exists twice .* or export the file in UTC"):
        load_bars(tmp_path / "bars.csv", tz=ZONE)


@pytest.mark.parametrize(
    ("zone", "hint"),
    [
        ("america/new york", "; did you mean America/New_York?"),
        ("America/NewYork", "; did you mean America/New_York?"),
        ("US/Eastrn", "; did you mean US/Eastern?"),
        ("utc", "; did you mean UTC?"),
        *(
            (zone, "; give a name such as America/New_York, America/Chicago or UTC")
            for zone in ("ET", "EDT", "Chicago")
        ),
        *((zone, " but an offset; zones have names") for zone in ("-05:00", "+0530", "GMT-5", "UTC5", "GMT-05")),
    ],
)
def test_only_a_zone_that_is_surely_meant_is_suggested(zone, hint):
    with pytest.raises(UserError) as caught:
        check_zone(zone)
    assert f"tz={zone!r} is not a time zone{hint}" in str(caught.value)
    assert ("did you mean" in str(caught.value)) == ("did you mean" in hint)


@pytest.mark.parametrize("minutes", [2, 5, 60, 1440])
def test_bars_of_another_length_are_refused_for_what_they_are(tools, minutes):
    frame = tools.walk_frame(tools.minutes("2024-03-05 10:00", 40 * minutes)[::minutes])
    with pytest.raises(UserError, match=f"usual step is {minutes} minutes"):
        clean_bars(frame, source="test")


def test_bars_of_seconds_are_refused(plain_frame):
    index = pd.date_range(plain_frame.index[0], periods=40, freq="s", name="ts")
    with pytest.raises(UserError, match="usual step is 1 seconds"):
        clean_bars(plain_frame.set_axis(index), source="test")


def test_quiet_minutes_make_no_other_bar_length(tools):
    minutes = np.cumsum([0, 2, 1, 8, 3, 5, 2, 2, 7, 4, 3, 2, 6])
    frame = tools.walk_frame(tools.minutes("2024-03-05 10:00", 60)[minutes])
    assert len(clean_bars(frame, source="test")) == 13
    assert len(clean_bars(frame.iloc[[0, 3]], source="test")) == 2
