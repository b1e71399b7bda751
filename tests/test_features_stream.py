"""The stream against the batch: the same row for every bar, bit for bit, however it was started."""

import inspect
import math

import numpy as np
import pandas as pd
import pytest
from feature_reference import expiry_week_frame, frame_of, prices_of, random_walk_prices, sample_frame
from hypothesis import given, settings
from hypothesis import strategies as st
from test_features_properties import VARIANTS, tick_frames

from moola_lib.errors import UserError
from moola_lib.features import FeatureStream, build_features
from moola_lib.features.sets import describe_set

every_variant = pytest.mark.parametrize("variant", VARIANTS)
quick = settings(max_examples=40, deadline=None, derandomize=True)
STAMP = pd.Timestamp("2024-03-04 14:30", tz="UTC")
GOOD_BAR = (100.0, 101.0, 99.0, 100.5)


def feed(stream, frame):
    """Rows, validity and flips of every bar of `frame`."""
    ids = frame["instrument_id"].tolist() if "instrument_id" in frame.columns else [None] * len(frame)
    rows, is_valid, is_flip = [], [], []
    for *bar, ts, instrument_id in zip(*prices_of(frame), frame.index, ids, strict=True):
        rows.append(stream.update(*bar, ts, instrument_id=instrument_id))
        is_valid.append(stream.is_valid)
        is_flip.append(stream.is_flip)
    return np.array(rows, np.float32).reshape(len(frame), len(stream.names)), is_valid, is_flip


def assert_equals_batch(stream, frame, first, table):
    """Feeding the bars from `first` on gives the table's rows."""
    rows, is_valid, is_flip = feed(stream, frame.iloc[first:])
    assert rows.dtype == table.values.dtype
    assert rows.tobytes() == table.values[first:].tobytes()
    assert is_valid == table.is_valid[first:].tolist()
    assert is_flip == table.is_flip[first:].tolist()


@every_variant
def test_a_stream_equals_the_batch(variant):
    frame, _ = sample_frame()
    stream = FeatureStream(**VARIANTS[variant])
    table = build_features(frame, **VARIANTS[variant])
    assert_equals_batch(stream, frame, 0, table)
    assert (stream.names, stream.set_id) == (table.names, table.set_id)


@every_variant
def test_a_stream_equals_the_batch_where_contracts_interleave(variant):
    frame, starts = expiry_week_frame()
    table = build_features(frame, **VARIANTS[variant])
    assert_equals_batch(FeatureStream(**VARIANTS[variant]), frame, 0, table)
    for first in (starts[3], starts[3] + 2):
        stream = FeatureStream.from_bars(frame.iloc[:first], **VARIANTS[variant])
        assert_equals_batch(stream, frame, first, table)


@st.composite
def frames_with_rolls(draw):
    """Short frames with arbitrary holes and, in half of them, instrument ids that change at arbitrary bars."""
    frame = draw(tick_frames())
    if draw(st.booleans()):
        rolls = draw(st.lists(st.integers(1, 59), max_size=3))
        frame = frame.assign(instrument_id=np.searchsorted(sorted(rolls), np.arange(len(frame)), side="right"))
    return frame


@every_variant
@quick
@given(frame=frames_with_rolls(), data=st.data())
def test_a_stream_started_anywhere_equals_the_batch(variant, frame, data):
    cut = data.draw(st.integers(0, len(frame)))
    table = build_features(frame, **VARIANTS[variant])
    stream = FeatureStream.from_bars(frame.iloc[:cut], **VARIANTS[variant])
    if cut > 0:
        assert (stream.is_valid, stream.is_flip) == (table.is_valid[cut - 1], table.is_flip[cut - 1])
    assert_equals_batch(stream, frame, cut, table)


@every_variant
def test_a_long_history_is_taken_over(variant):
    frame, starts = sample_frame()
    table = build_features(frame, **VARIANTS[variant])
    for cut in (starts[1] - 1, starts[1], starts[1] + 1, 300, 450, 599, 600):
        assert_equals_batch(FeatureStream.from_bars(frame.iloc[:cut], **VARIANTS[variant]), frame, cut, table)


@given(k=st.floats(0.5, 8), gap=st.sampled_from([1.0, 1.5, 5.0, 89.0, 1000.0]), frame=tick_frames())
@quick
def test_any_k_and_any_gap(k, gap, frame):
    options = {"k": k, "max_gap_minutes": gap}
    assert_equals_batch(FeatureStream(**options), frame, 0, build_features(frame, **options))


def test_only_the_current_segment_is_needed():
    frame, starts = sample_frame()
    table = build_features(frame)
    stream = FeatureStream.from_bars(frame.iloc[starts[-1] : 500])
    assert_equals_batch(stream, frame, 500, table)


def test_restart_is_a_roll_that_no_id_tells():
    frame, _ = sample_frame(n_bars=100)
    roll = 57
    stream = FeatureStream()
    before, *_ = feed(stream, frame.iloc[:roll])
    stream.restart()
    assert not stream.is_valid
    after, *_ = feed(stream, frame.iloc[roll:])
    known = build_features(frame.assign(instrument_id=(np.arange(100) >= roll).astype(int)))
    assert np.concatenate([before, after]).tobytes() == known.values.tobytes()


def test_a_row_does_not_change_later():
    frame, _ = sample_frame(n_bars=60)
    stream = FeatureStream()
    first = stream.update(*frame.iloc[0, :4], frame.index[0])
    kept = first.copy()
    feed(stream, frame.iloc[1:])
    assert np.array_equal(first, kept)


@pytest.mark.parametrize(
    "ts", [STAMP, STAMP.to_pydatetime(), STAMP.tz_convert("Asia/Tokyo"), "2024-03-04T14:30:00Z", STAMP.as_unit("s")]
)
def test_stamps_of_any_kind_with_a_zone(ts):
    stream = FeatureStream()
    stream.update(*GOOD_BAR, STAMP - pd.Timedelta(minutes=5))
    stream.update(*GOOD_BAR, ts)  # five minutes are no gap
    with pytest.raises(UserError, match="not later"):
        stream.update(*GOOD_BAR, STAMP)


NAN, INF = math.nan, math.inf


@pytest.mark.parametrize(
    ("bar", "ts", "sentence"),
    [
        ((NAN, 101.0, 99.0, 100.0), 1, "missing or infinite"),
        ((100.0, INF, 99.0, 100.0), 1, "missing or infinite"),
        ((100.0, 99.0, 101.0, 100.0), 1, "high is below low"),
        ((102.0, 101.0, 99.0, 100.0), 1, "lies outside low..high"),
        ((100.0, 101.0, 99.0, 98.0), 1, "lies outside low..high"),
        ((0.0, 101.0, 0.0, 100.0), 1, "not above 0"),
        (("many", 101.0, 99.0, 100.0), 1, "not a number"),
        ((None, 101.0, 99.0, 100.0), 1, "not a number"),
        (GOOD_BAR, 0, "not later than the one before"),
        (GOOD_BAR, -1, "not later than the one before"),
        (GOOD_BAR, "2024-03-04 15:31", "carries no time zone"),
        (GOOD_BAR, pd.NaT, "carries no time zone"),
        (GOOD_BAR, "soon", "is not a time"),
        (GOOD_BAR, None, "carries no time zone"),
    ],
)
@pytest.mark.parametrize("feature_set", ["relativity11", "relative_transform11", "ohlc4"])
def test_a_bad_bar_is_one_sentence_and_leaves_the_state(feature_set, bar, ts, sentence):
    frame = frame_of(*random_walk_prices(40, seed=3))
    table = build_features(frame, feature_set=feature_set)
    stream = FeatureStream(feature_set)
    feed(stream, frame.iloc[:30])
    ts = frame.index[29] + pd.Timedelta(minutes=ts) if isinstance(ts, int) else ts
    with pytest.raises(UserError, match=sentence):
        stream.update(*bar, ts)
    assert_equals_batch(stream, frame, 30, table)


def test_ids_are_given_always_or_never():
    stream = FeatureStream()
    stream.update(*GOOD_BAR, STAMP, instrument_id=7)
    with pytest.raises(UserError, match="for every bar or for none"):
        stream.update(*GOOD_BAR, STAMP + pd.Timedelta(minutes=1))


def test_history_with_a_missing_price_is_refused():
    frame = frame_of(*random_walk_prices(30, seed=3))
    frame.iloc[4, 1] = np.nan
    with pytest.raises(UserError, match="missing or infinite"):
        FeatureStream.from_bars(frame)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"feature_set": "relativity12"}, "is not known"),
        ({"zigzag": "secondary"}, "is not known"),
        ({"extra": ("consol",)}, "is not known"),
        ({"feature_set": "ohlc4", "extra": ("consol_proxy",)}, "does not go with ohlc4"),
        ({"extra": "consol_proxy"}, "is a single name"),
        ({"k": "3"}, "k = '3' is not a number"),
        ({"k": 0.0}, "k = 0.0 is not allowed"),
        ({"k": NAN}, "k = nan is not allowed"),
        ({"max_gap_minutes": -1.0}, "max_gap_minutes = -1.0 is not allowed"),
    ],
)
def test_wrong_options_are_refused_by_stream_and_batch(options, sentence):
    frame = frame_of(*random_walk_prices(30, seed=3))
    for build in (lambda: FeatureStream(**options), lambda: build_features(frame, **options)):
        with pytest.raises(UserError, match=sentence):
            build()


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda frame: frame.iloc[::-1], "not in time order"),
        (lambda frame: frame.tz_localize(None), "no index of stamps with a zone"),
        (lambda frame: frame.reset_index(drop=True), "no index of stamps with a zone"),
        (lambda frame: frame.drop(columns="high"), "lack the column high"),
        (lambda frame: "bars.parquet", "bars are expected, not str"),
    ],
)
def test_a_history_that_is_no_bars_is_refused(change, sentence):
    with pytest.raises(UserError, match=sentence):
        FeatureStream.from_bars(change(frame_of(*random_walk_prices(30, seed=3))))


def test_a_stamp_beyond_the_calendar_is_refused():
    with pytest.raises(UserError, match="is not a time"):
        FeatureStream().update(*GOOD_BAR, "2300-01-01T00:00Z")


def test_batch_and_stream_share_their_defaults():
    defaults = {name: p.default for name, p in inspect.signature(describe_set).parameters.items()}
    for function in (build_features, FeatureStream):
        theirs = inspect.signature(function).parameters
        assert {name: theirs[name].default for name in defaults} == defaults
