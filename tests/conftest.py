"""Small shared inputs: hand-made bars with every kind of break, and a simulated market with its labels."""

import os
import shutil
import signal
import threading
from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from moola_lib.market.bars import Bars, clean_bars

os.environ.setdefault("OMP_NUM_THREADS", "1")  # read when torch is first imported: tiny models gain nothing from more

TICK = 0.25
ZONE = "America/New_York"


@dataclass(frozen=True)
class TinyBars:
    """Hand-made bars, and where their weekend, hole, half-day and roll lie (positions of the bars after them)."""

    frame: pd.DataFrame
    bars: Bars
    weekend: int
    hole: int
    half_day: int
    roll: int


def walk_frame(stamps, *, seed=17, symbol="NQH4", price=18_000.0):
    """Bars on ticks whose open is the close before, at the given UTC stamps."""
    rng = np.random.default_rng(seed)
    close = price + TICK * np.cumsum(rng.integers(-6, 7, len(stamps)))
    opens = np.r_[price, close[:-1]]
    wicks = TICK * rng.integers(0, 6, (2, len(stamps)))
    return pd.DataFrame(
        {
            "open": opens,
            "high": np.maximum(opens, close) + wicks[0],
            "low": np.minimum(opens, close) - wicks[1],
            "close": close,
            "volume": rng.integers(1, 500, len(stamps)).astype(float),
            "symbol": symbol,
        },
        index=pd.DatetimeIndex(stamps, name="ts"),
    )


def minutes(first, n):
    """`n` one-minute UTC stamps from a New York wall time."""
    return pd.date_range(pd.Timestamp(first, tz=ZONE).tz_convert("UTC"), periods=n, freq="min")


@pytest.fixture(scope="session")
def plain_frame():
    """Forty bars without a break."""
    return walk_frame(minutes("2024-03-05 10:00", 40))


@pytest.fixture(scope="session")
def tiny():
    """Four sessions around the change to daylight saving time on 2024-03-10, in the March expiry week."""
    pieces = [
        minutes("2024-03-08 14:00", 180),  # Friday to its close at 17:00
        minutes("2024-03-10 18:00", 130),  # Sunday evening: Monday's session
        minutes("2024-03-10 20:40", 120),  # after a hole of half an hour
        minutes("2024-03-11 18:00", 115),  # Tuesday, a half-day
        minutes("2024-03-12 18:00", 120),  # Wednesday, in the next contract
    ]
    stamps = pieces[0].append(pieces[1:])
    frame = walk_frame(stamps)
    edges = np.cumsum([len(piece) for piece in pieces])
    frame.iloc[edges[3] :, :4] = np.round(frame.iloc[edges[3] :, :4] * 1.01 / TICK) * TICK
    return TinyBars(frame, clean_bars(frame, source="tiny"), *map(int, edges[:4]))


@pytest.fixture(scope="session")
def market():
    """Six simulated sessions with 48 planted windows."""
    from moola_lib.market import simulate_bars

    return simulate_bars(n_sessions=6, seed=5)


@pytest.fixture(scope="session")
def table(market):
    """The feature table of `market`."""
    from moola_lib.features import build_features

    return build_features(market.bars)


@pytest.fixture(scope="session")
def gather(table):
    """Windows of `table`."""
    from moola_lib.windows.gather import WindowGatherer

    return WindowGatherer(table)


@pytest.fixture(scope="session")
def labelled(market, table):
    """Forty labelled windows of `market`, in time order."""
    from moola_lib.labels import labels_from_planted
    from moola_lib.windows import place_labels

    # every planted window of the lesser class, so that the proportions can be met
    labels = labels_from_planted(market.planted, symbol="SIM", n_windows=36)
    return place_labels(labels, market.bars.frame, table.starts)[0]


@pytest.fixture(scope="session")
def promoted_run(tmp_path_factory):
    """The run `first` with models to promote: (root of its project, its folds, windows and gatherer)."""
    from promoted import build_run

    root = tmp_path_factory.mktemp("promoted")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MOOLA_HOME", str(root))
        patch.setenv("MOOLA_RUN_ID", "first")
        return root, build_run(root)


@pytest.fixture
def project(promoted_run, tmp_path, monkeypatch):
    """A copy of the project of `promoted_run`, to do with as one likes."""
    root = tmp_path / "project"
    shutil.copytree(promoted_run[0], root)
    for path in root.glob("data/artifacts/*/*/record.json"):
        path.write_text(path.read_text().replace(str(promoted_run[0]), str(root)))
    monkeypatch.setenv("MOOLA_HOME", str(root))
    return root


@pytest.fixture
def make_windows():
    """Build LabelledWindows from lists of spans, for metrics worked by hand."""
    from moola_lib.windows import LabelledWindows

    def make(spans, states, days=None, places=None):
        width = max(1, *(len(each) for each in spans))
        padded = np.full((len(spans), width, 2), -1, np.int64)
        for row, each in enumerate(spans):
            if each:
                padded[row, : len(each)] = each
        n = len(spans)
        days = np.arange(n) if days is None else np.asarray(days)
        return LabelledWindows(
            window_id=np.array([f"w{row}" for row in range(n)]),
            place=np.arange(n) * 2000 if places is None else np.asarray(places),
            day=np.datetime64("2024-01-02") + days.astype("timedelta64[D]"),
            has_expansion=padded[:, 0, 0] >= 0,
            start=padded[:, 0, 0],
            end=padded[:, 0, 1],
            spans=padded,
            state=np.asarray(states, np.int64),
        )

    return make


@pytest.fixture
def tools():
    """Helpers for building further bars."""
    return SimpleNamespace(walk_frame=walk_frame, minutes=minutes, tick=TICK)


@pytest.fixture(scope="session")
def series(tmp_path_factory):
    """A file with thirty-two sessions over two month ends, with holes."""
    from moola_lib.market import save_bars, simulate_bars

    path = tmp_path_factory.mktemp("bars") / "sim.parquet"
    save_bars(simulate_bars(n_sessions=32, seed=3, hole_share=0.02, start_date="2024-01-15").bars, path)
    return path


@pytest.fixture(scope="session")
def stored(series, tmp_path_factory):
    """What `moola features` writes of `series`."""
    from moola_lib.runs.tables import write_table

    folder = tmp_path_factory.mktemp("stored") / "table"
    write_table(series, folder)
    return folder


@pytest.fixture
def hears_hang_ups():
    """SIGHUP as it is without `nohup`, under which the tests may run."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.fixture
def pod(tmp_path):
    """A pod on this machine, reached over sshd."""
    import sshd

    sshd.require()
    pod = sshd.LocalPod(tmp_path / "pod").start()
    yield pod
    pod.kill()


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A project to send to a pod, whose runs take no kernel; times are short."""
    from pod_project import build_pod_project

    from moola_lib.runs.pods import launch, ssh

    root = build_pod_project(tmp_path / "client", is_quick=True)
    monkeypatch.setenv("MOOLA_HOME", str(root))
    for name in ("MOOLA_RUN_ID", "MOOLA_HEADLESS", "RUNPOD_API_KEY", "RUNPOD_API_URL"):
        monkeypatch.delenv(name, raising=False)
    quick = {"heartbeat_seconds": 0.2, "poll_seconds": 0.2, "retry_seconds": 1.0, "stop_seconds": 10.0}
    for name, value in quick.items():
        monkeypatch.setitem(launch.TIMES, name, value)
    monkeypatch.setattr(launch, "LEAST_FREE_GB", 0.01)
    monkeypatch.setattr(ssh, "PATIENCE_SECONDS", 60.0)
    return root


@pytest.fixture
def runpod():
    """RunPod's API on this machine, with the keys of the account and of the pod."""
    import runpod_api
    import sshd

    account = runpod_api.FakeRunPod({runpod_api.OWN_KEY, sshd.KEY})
    with runpod_api.serve(account) as account.url:
        yield account


@pytest.fixture
def rented(runpod, home, tmp_path, monkeypatch):
    """A pod that RunPod's API knows, and stops."""
    import sshd

    sshd.require()
    pod = sshd.LocalPod(tmp_path / "pod", api_url=runpod.url).start()
    runpod.add(sshd.POD_ID, port=pod.port)
    runpod.on_stop = lambda pod_id: threading.Timer(0.2, pod.kill).start()
    monkeypatch.setenv("RUNPOD_API_URL", runpod.url)
    yield pod
    pod.kill()
