"""What the command line understands: the commands and their options."""

import argparse

from moola_lib import __version__
from moola_lib.runs.pods import commands as pods
from moola_lib.runs.sweeps import command as sweeps

DESCRIPTION = "Find expansions in one-minute bars: bars in, notebooks run, models kept and used."
PROFILES = ("quick", "research", "runpod")
EXIT_CODES = """\
exit codes, as in the record (reports/RUN/run.json):
  0    every notebook finished
  1    a notebook failed, or the disk is full
  2    bad input: nothing was started, or a notebook refused what it was given
  3    a gate failed and --strict was given (rerun: a figure differs)
  4    a key or password was found in what the run wrote; its report is withheld
  130  interrupted (Ctrl-C, SIGTERM, the terminal closed); the notebook cleaned up
  137  the runner was killed (SIGKILL, out of memory): the run is listed as lost
  138  the kernel died (killed, out of memory, segmentation fault)
"""


def build_parser():
    """Return the parser; an option that was not given is None, so that every default stays where it is defined."""
    parser = argparse.ArgumentParser(prog="moola", description=DESCRIPTION)
    parser.add_argument("--version", action="version", version=f"moola {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    run = commands.add_parser(
        "run", help="run one notebook, several, or the whole chain", epilog=EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    run.add_argument("stems", nargs="*", metavar="STEM", help="03, 03_pretraining or a path")
    run.add_argument("--profile", choices=PROFILES, help="scale of the run (default quick)")
    run.add_argument("-f", dest="file", metavar="FILE", help="YAML file of parameters")
    run.add_argument(
        "-p", dest="pairs", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"),
        help="one parameter, value in YAML; a relative path counts from the current folder",
    )  # fmt: skip
    run.add_argument("--run-id", help="name of the run (default UTC time and profile)")
    run.add_argument("--resume", action="store_true", help="continue the run --run-id names")
    run.add_argument("--strict", action="store_true", default=None, help="exit 3 if a gate fails")
    run.add_argument(
        "--cell-timeout",
        type=_seconds,
        metavar="SECONDS",
        help="stop a notebook whose cell takes longer (default: none)",
    )

    rerun = commands.add_parser(
        "rerun", help="repeat a run from its record and compare the figures", epilog=EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    rerun.add_argument("original", metavar="RUN", help="a run id")
    rerun.add_argument("--run-id", help="name of the new run (default RUN-rerun)")
    rerun.add_argument("--strict", action="store_true", help="exit 3 if a gate fails")

    sweeps.add_arguments(commands)

    status = commands.add_parser("status", help="how far is a run? epoch, loss, rate, time left, memory")
    status.add_argument("run_id", nargs="?", metavar="RUN", help="default the newest")
    status.add_argument("--json", action="store_true", help="for scripts")

    bars = commands.add_parser("import", help="read bars of any vendor into one parquet file")
    bars.add_argument("files", nargs="+", metavar="FILE", help="parquet, CSV or DBN; several are pieces of one series")
    bars.add_argument("-o", dest="output", required=True, metavar="FILE", help="for example data/raw/NQ.parquet")
    _add_reading(bars)
    bars.add_argument("--drop-budget", type=float, metavar="FRACTION", help="rows that may be dropped (default 0.005)")
    bars.add_argument("--overwrite", action="store_true", help="replace an existing output")

    labels = commands.add_parser("labels", help="check labels of any format, and write them in another")
    labels.add_argument("source", metavar="FILE", help="parquet, CSV or Label Studio JSON")
    labels.add_argument(
        "-o", dest="output", metavar="FILE", help="ends in .parquet, .csv or .json; without: only check"
    )
    labels.add_argument("--bars", metavar="BARS", help="the bars they were made on: for JSON, and the older layout")
    labels.add_argument("--symbol", metavar="NAME", help="which symbol of the bars, or of a JSON that names none")
    labels.add_argument("--overwrite", action="store_true", help="replace an existing output")

    predict = commands.add_parser("predict", help="find expansions in bars with a trained model")
    predict.add_argument("source", metavar="BARS", help="parquet, CSV or DBN of any vendor")
    predict.add_argument(
        "--model", required=True, metavar="MODEL", help="a name in data/models, or a .safetensors file"
    )
    predict.add_argument(
        "-o", dest="output", required=True, metavar="FILE", help="detections (.parquet); each bar goes to .bars.parquet"
    )
    predict.add_argument("--csv", metavar="FILE", help="the detections for charting tools")
    predict.add_argument("--follow", action="store_true", help="go on as the file grows (causal), until interrupted")
    _add_confidence(predict)
    _add_scanning(predict)
    predict.add_argument("--overwrite", action="store_true", help="replace existing outputs")

    evaluate = commands.add_parser("evaluate", help="would a model have worked on these bars?")
    evaluate.add_argument("model", metavar="MODEL", help="a name in data/models, or a .safetensors file")
    evaluate.add_argument("source", metavar="BARS", help="parquet, CSV or DBN of any vendor")
    evaluate.add_argument("labels", metavar="LABELS", nargs="?", help="a label table of these bars")
    evaluate.add_argument(
        "--walk-forward", type=int, metavar="N",
        help="with LABELS: blocks to test the recipe on, trained on those before (default 3; 0: none)",
    )  # fmt: skip
    _add_confidence(evaluate)
    _add_scanning(evaluate)

    calibrate = commands.add_parser("calibrate", help="set a model's threshold by false alarms a session")
    calibrate.add_argument("model", metavar="MODEL", help="a name in data/models, or a .safetensors file")
    calibrate.add_argument("source", metavar="BARS", help="sessions of the same instrument, not trained on")
    calibrate.add_argument("--alarms-per-session", type=float, metavar="N", help="to allow (default 2)")
    _add_scanning(calibrate)

    label = commands.add_parser("label", help="label windows in JupyterLab, by keyboard, mouse or finger")
    label.add_argument("table", nargs="?", metavar="TABLE", help="default data/labels/labels.parquet")
    label.add_argument("--bars", metavar="FILE", help="default those of the newest run of notebook 01")
    label.add_argument("--proposals", metavar="FILE", help="of moola predict -o (default: of the rule, from the bars)")
    label.add_argument("--annotator", metavar="NAME", help="who is labelling (default the login name)")
    _add_reading(label)

    doctor = commands.add_parser("doctor", help="is this machine ready?")
    doctor.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")

    features = commands.add_parser("features", help="featurise bars once, for many runs; or check such a table")
    features.add_argument("source", nargs="?", metavar="BARS", help="a file of bars, or a folder of many instruments")
    features.add_argument("-o", dest="folder", metavar="DIR", help="folder to write; of a folder, one table a month")
    features.add_argument("--feature-set", help="relativity11 (default), relative_transform11 or ohlc4")
    features.add_argument("--zigzag", help="swing rule: primary (default) or legacy")
    features.add_argument("--k", type=float, help="retracement in ATRs that confirms a primary swing (default 3)")
    features.add_argument("--extra", nargs="+", metavar="NAME", help="further columns: consol_proxy, position")
    features.add_argument("--max-gap-minutes", type=float, help="longest gap inside a segment (default 5, most 10080)")
    _add_reading(features)
    split = features.add_mutually_exclusive_group()
    split.add_argument(
        "--fractions", nargs=3, type=float, metavar=("TRAIN", "VAL", "TEST"), help="split (default 0.7 0.15 0.15)"
    )
    split.add_argument("--dates", nargs=2, metavar=("TRAIN_END", "VAL_END"), help="last trade dates, as 2024-12-31")
    features.add_argument("--embargo-bars", type=int, help="bars between the parts (default 105, a window; not less)")
    features.add_argument(
        "--overwrite",
        action="store_true",
        help="replace a table that is there; of a folder, remove what has no bars",
    )
    features.add_argument("--workers", type=int, metavar="N", help="processes for a folder (default one per core)")
    features.add_argument("--scheduler", metavar="ADDRESS", help="for a folder: tcp://HOST:PORT of a Dask scheduler")
    features.add_argument("--verify", metavar="DIR", help="check the table in DIR; exit 3 if a check fails")
    features.add_argument("--bars", metavar="FILE", help="with --verify: the bars it was made from")

    report = commands.add_parser("report", help="write the pages of a run again, or to hand them on")
    report.add_argument("run_id", metavar="RUN")
    report.add_argument(
        "notebooks", nargs="*", metavar="NOTEBOOK", help="03 or 03_pretraining (default all of the run)"
    )
    report.add_argument("--single-file", action="store_true", help="everything in each page: nothing beside it")
    report.add_argument("--show-code", action="store_true", help="unfold the code, and print it too")
    report.add_argument(
        "-o", dest="output", metavar="PATH", help="a folder, or of one notebook a single file that ends in .html"
    )

    promote = commands.add_parser("promote", help="give a model of a run a name, with a card of where it came from")
    promote.add_argument("run_id", metavar="RUN", help="a run id, or manual")
    promote.add_argument("name", metavar="NAME", help="the model's folder is data/models/NAME")
    promote.add_argument("--arm", help='which way of training (default "pre-trained")')
    promote.add_argument("--fold", type=int, metavar="K", help="default the one trained on the most recent days")
    promote.add_argument(
        "--encoder", nargs="?", const="encoder", metavar="WHICH",
        help="weights that pre-training left, instead: encoder (default), encoder_multitask",
    )  # fmt: skip
    promote.add_argument("--replace", action="store_true", help="move a model of that name to data/models/backups")

    models = commands.add_parser("models", help="list the named models, or say where one came from")
    models.add_argument("name", nargs="?", metavar="NAME", help="one model, with its figures and gates")
    models.add_argument("--why", action="store_true", help="its ancestry, down to the raw file")

    commands.add_parser("index", help="rebuild reports/index.html")

    compare = commands.add_parser("compare", help="what differs between runs, and whether their figures do")
    compare.add_argument("run_ids", nargs="+", metavar="RUN", help="two or more run ids")
    compare.add_argument("--baseline", metavar="RUN", help="the run to compare with (default the first)")

    export = commands.add_parser("export", help="a run as one file to hand on; or to MLflow or TensorBoard")
    export.add_argument("run_id", metavar="RUN")
    export.add_argument("-o", dest="output", metavar="FILE.zip", help="report and record, no data and no weights")
    export.add_argument("--with", dest="parts", metavar="PARTS", help="add data, weights, or data,weights")
    export.add_argument("--overwrite", action="store_true", help="replace an existing FILE.zip")
    export.add_argument("--mlflow", metavar="STORE", help="a folder or a tracking server's address")
    export.add_argument("--tensorboard", metavar="DIR", help="a log directory")

    gc = commands.add_parser("gc", help="what runs cost on disk; remove checkpoints of old ones")
    gc.add_argument("--keep", type=_count, metavar="N", help="remove those of all but the newest N runs")
    gc.add_argument("--older-than", type=_count, metavar="DAYS", help="remove those of runs that began before")
    gc.add_argument("--dry-run", action="store_true", help="only say what would be removed")
    gc.add_argument("--yes", action="store_true", help="do not ask")

    pods.add_arguments(commands, PROFILES, argparse.RawDescriptionHelpFormatter)
    return parser


def _seconds(text):
    """Read a duration above 0."""
    seconds = int(text)
    if seconds <= 0:
        raise ValueError
    return seconds


_seconds.__name__ = "whole number of seconds above 0"  # argparse names it where it refuses


def _add_reading(parser):
    """Add the options that say how a file of bars is read."""
    parser.add_argument("--tz", metavar="ZONE", help="zone of stamps that carry none, for example America/Chicago")
    parser.add_argument("--stamp", choices=("start", "end"), help="what the stamps mark, where the files do not tell")
    parser.add_argument("--symbol", metavar="NAME", help="which symbol, or the name of a series that has none")
    parser.add_argument("--scale", type=float, metavar="FACTOR", help="for prices that are not index-sized")


def _add_scanning(parser):
    """Add the options of a model's walk over bars, and those that say how the bars are read."""
    parser.add_argument("--causal", action="store_true", help="answer each bar from the bars up to it only")
    parser.add_argument("--stride", type=int, metavar="BARS", help="bars between windows (default 5)")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    _add_reading(parser)


def _add_confidence(parser):
    """Add the options that say which detections count."""
    confident = parser.add_mutually_exclusive_group()
    confident.add_argument("--threshold", type=float, help="least confidence of a detection, 0 to 1")
    confident.add_argument(
        "--alarms-per-session", type=float, metavar="N",
        help="false alarms to allow (default as the card was calibrated)",
    )  # fmt: skip


def _count(text):
    """Return a whole number from 0."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 0")
    return int(text)
