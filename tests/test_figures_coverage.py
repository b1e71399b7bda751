"""The coverage calendar shows each session once, holes and half-days apart, and no weekend."""

import re

import numpy as np
import pandas as pd
import pytest

from moola_lib.figures import theme
from moola_lib.figures.coverage import LEVELS, coverage_figure, hours_figure
from moola_lib.market import expected_sessions, hourly_coverage, session_coverage

LEVEL_OF = {name: number for number, (_, name, _) in enumerate(LEVELS)}


def whole_index(first, last):
    pieces = [pd.date_range(s.open, s.close, freq="min", inclusive="left") for s in sessions_of(first, last)]
    return pieces[0].append(pieces[1:])


def sessions_of(first, last):
    return list(expected_sessions(first, last).itertuples())


@pytest.fixture(scope="module")
def july():
    """July 2024 with a hole of two hours on the 10th, no bars on the 15th, and few on the 16th."""
    index = whole_index("2024-07-01", "2024-07-31")
    holes = [("2024-07-10 14:00", "2024-07-10 16:00"), ("2024-07-14 22:00", "2024-07-16 18:00")]
    for first, end in holes:
        index = index[(index < first) | (index >= end)]
    return index


def cells(figure):
    """Level by date of every cell drawn, from what hovering says."""
    z, text = (np.asarray(each, dtype=object) for each in (figure.data[0].z, figure.data[0].text))
    found = {}
    for level, words in zip(z.ravel(), text.ravel(), strict=True):
        if words is not None:
            date = re.search(r"\d{4}-\d\d-\d\d", words)[0]
            assert date not in found
            found[date] = (int(level), words)
    return found


def test_every_weekday_is_one_cell_and_holes_have_their_colours(july):
    found = cells(coverage_figure(session_coverage(july)))
    assert list(found) != [] and set(found) == {f"{day:%Y-%m-%d}" for day in pd.bdate_range("2024-07-01", "2024-07-31")}
    odd = {date: level for date, (level, _) in found.items() if level != LEVEL_OF["98% or more"]}
    expected = {"2024-07-10": "90–98%", "2024-07-15": "absent", "2024-07-16": "under 50%"}
    assert odd == {date: LEVEL_OF[name] for date, name in expected.items()}
    assert "1,260 of 1,380 bars (91.3%)" in found["2024-07-10"][1] and "longest hole 120" in found["2024-07-10"][1]
    assert "half-day" in found["2024-07-04"][1] and "1,140 of 1,140" in found["2024-07-04"][1]


def test_half_days_carry_a_dot_and_the_legend_names_what_occurs(july):
    figure = coverage_figure(session_coverage(july))
    dots = next(trace for trace in figure.data if trace.name == "half-day")
    assert list(zip(dots.x, dots.y, strict=True)) == [(0, 2), (0, 3)]  # Wednesday and Thursday of the first week
    names = [trace.name for trace in figure.data[1:]]
    assert names == ["98% or more", "90–98%", "under 50%", "absent", "half-day"]


def test_a_holiday_is_grey_and_no_hole():
    found = cells(coverage_figure(session_coverage(whole_index("2024-12-23", "2024-12-27"))))
    assert found["2024-12-25"] == (-1, "Wed 2024-12-25<br>no session")
    assert found["2024-12-24"][0] == LEVEL_OF["98% or more"]


def planned(first, last):
    """Coverage without a hole."""
    sessions = expected_sessions(first, last)
    return sessions.assign(n_bars=sessions["expected_bars"], share=1.0, longest_hole_bars=0, kind="full")


@pytest.mark.parametrize(
    ("first", "last", "n_weeks", "labels"),
    [
        ("2025-08-12", "2025-08-15", 1, "11 Aug<br>2025"),
        ("2024-07-22", "2024-08-20", 5, "22 Jul<br>2024, 5 Aug, 19 Aug"),
        ("2024-12-23", "2025-01-17", 4, "23 Dec<br>2024, 6 Jan<br>2025"),
        ("2024-11-11", "2025-02-05", 13, "Nov<br>2024, Dec, Jan<br>2025"),
        ("2024-05-28", "2025-05-05", 50, "Jun<br>2024, Aug, Oct, Dec, Feb<br>2025, Apr"),
        ("2024-01-01", "2024-12-31", 53, "Jan<br>2024, Mar, May, Jul, Sep, Nov"),
    ],
)
def test_up_to_a_year_is_one_strip_of_the_weeks_there_are(first, last, n_weeks, labels):
    figure = coverage_figure(planned(first, last))
    assert figure.layout.xaxis.range == (-0.5, n_weeks - 0.5)
    assert figure.layout.yaxis.ticktext == ("Mon", "Wed", "Fri")
    assert ", ".join(figure.layout.xaxis.ticktext) == labels
    text = np.asarray(figure.data[0].text, dtype=object)
    assert text.shape == (5, n_weeks)
    for at, label in zip(figure.layout.xaxis.tickvals, figure.layout.xaxis.ticktext, strict=True):
        column = [re.search(r"\d{4}-\d\d-\d\d", words)[0] for words in text[:, round(at)] if words]
        assert pd.Timestamp(column[0]).strftime("%b") == label.split("<br>")[0].split()[-1]
    assert set(cells(figure)) == {f"{day:%Y-%m-%d}" for day in pd.bdate_range(*planned(first, last).index[[0, -1]])}


def test_five_years_are_five_strips_and_every_session_is_there():
    sessions = planned("2020-07-01", "2025-06-30")
    figure = coverage_figure(sessions)
    found = cells(figure)
    assert len(found) == len(pd.bdate_range("2020-07-01", "2025-06-30"))
    assert sum(level == LEVEL_OF["98% or more"] for level, _ in found.values()) == len(sessions)
    years = [text for text in figure.layout.yaxis.ticktext if "20" in text]
    assert years == [f"<b>{year}</b>" for year in range(2020, 2026)]
    assert 400 < figure.layout.height < 900
    assert figure.layout.xaxis.range == (-0.5, 52.5)  # no weekday of these years is in a 54th week
    assert figure.layout.xaxis.ticktext == ("Jan", "Mar", "May", "Jul", "Sep", "Nov")


@pytest.mark.parametrize("day", ["2024-07-01", "2024-12-31"])
def test_one_day_is_drawn(day):
    assert set(cells(coverage_figure(session_coverage(whole_index(day, day))))) == {day}


def test_hours_show_where_in_the_session_bars_are_missing(july):
    hours = hourly_coverage(july)
    figure = hours_figure(hours)
    z = np.asarray(figure.data[0].z, dtype=float)
    assert z.shape == hours.shape
    row = hours.index.get_loc("2024-07-10")
    missing = np.flatnonzero(z[row] == LEVEL_OF["absent"])
    assert hours.columns[missing].tolist() == ["10:00", "11:00"]
    closed = z[hours.index.get_loc("2024-07-04")] == -1
    assert hours.columns[closed].tolist() == ["13:00", "14:00", "15:00", "16:00"]
    assert "nothing scheduled" in figure.data[0].text[hours.index.get_loc("2024-07-04")][-1]


def test_both_have_the_common_look_and_leave_their_input_alone(july):
    for draw, frame in [(coverage_figure, session_coverage(july)), (hours_figure, hourly_coverage(july))]:
        before = frame.copy()
        figure = draw(frame, title="t")
        pd.testing.assert_frame_equal(frame, before)
        assert figure.layout.title.text == "t"
        assert figure.layout.template.layout.colorway == theme.TEMPLATE.layout.colorway
