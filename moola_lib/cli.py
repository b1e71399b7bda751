"""The front door: `moola import`, `features`, `run`, `promote`, `models`, `predict` and others. Argument parsing only.

Every import of weight waits until its command runs: `moola --help` is instant.
"""

import argparse
import contextlib
import signal
import sys
import threading

from moola_lib import __version__
from moola_lib.errors import UserError

PROFILES = ("quick", "research", "runpod")


def main(argv=None, models=None):
    """Run the command line; return its exit code.

    Parameters
    ----------
    argv : list of str, optional
        Default the process's arguments.
    models : dict, optional
        Stem to parameter model, default `moola_lib.runs.parameters.PARAMETERS`.

    Returns
    -------
    int
        0 done, 1 a notebook failed, 2 bad input, 3 a gate failed under
        `--strict` (or the doctor or `features --verify` says no), 130 interrupted.
    """
    arguments = _parser().parse_args(argv)
    try:
        with _sigterm_interrupts():
            return _run_command(arguments, models)
    except UserError as error:
        print(f"moola: {_one_line(error)}", file=sys.stderr)
        return 2
    except PermissionError as error:
        print(f"moola: {_one_line(error.filename or error)} may not be read; change its permissions", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        advice = "; run the same command again to go on" if arguments.command in ("import", "features") else ""
        print(f"moola: interrupted{advice}", file=sys.stderr)
        return 130


def _run_command(arguments, models):
    if arguments.command == "run":
        return _run(arguments, models)
    if arguments.command == "import":
        return _import(arguments)
    if arguments.command == "predict":
        return _predict(arguments)
    if arguments.command == "evaluate":
        return _evaluate(arguments)
    if arguments.command == "calibrate":
        return _calibrate(arguments)
    if arguments.command == "doctor":
        from moola_lib.runs.doctor import doctor

        return doctor(arguments.device)
    if arguments.command == "features":
        return _verify_features(arguments) if arguments.verify else _features(arguments)
    if arguments.command == "promote":
        return _promote(arguments)
    if arguments.command == "models":
        return _models(arguments)
    return _index()


@contextlib.contextmanager
def _sigterm_interrupts():
    """Treat SIGTERM like Ctrl-C, so that what is half-written is removed."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(number, frame):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a second one must not cut the clean-up short
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _parser():
    parser = argparse.ArgumentParser(prog="moola", description=__doc__.partition("\n")[0])
    parser.add_argument("--version", action="version", version=f"moola {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    run = commands.add_parser("run", help="run one notebook, several, or the whole chain")
    run.add_argument("stems", nargs="*", metavar="STEM", help="03, 03_pretraining or a path")
    run.add_argument("--profile", choices=PROFILES, help="scale of the run (default quick)")
    run.add_argument("-f", dest="file", metavar="FILE", help="YAML file of parameters")
    run.add_argument(
        "-p", dest="pairs", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"),
        help="one parameter, value in YAML; a relative path counts from the current folder",
    )  # fmt: skip
    run.add_argument("--run-id", help="name of the run (default UTC time and profile)")
    run.add_argument("--resume", action="store_true", help="continue the run --run-id names")
    run.add_argument("--strict", action="store_true", help="exit 3 if a gate fails")

    bars = commands.add_parser("import", help="read bars of any vendor into one parquet file")
    bars.add_argument("files", nargs="+", metavar="FILE", help="parquet, CSV or DBN; several are pieces of one series")
    bars.add_argument("-o", dest="output", required=True, metavar="FILE", help="for example data/raw/NQ.parquet")
    _add_reading(bars)
    bars.add_argument("--drop-budget", type=float, metavar="FRACTION", help="rows that may be dropped (default 0.005)")
    bars.add_argument("--overwrite", action="store_true", help="replace an existing output")

    predict = commands.add_parser("predict", help="find expansions in bars with a trained model")
    predict.add_argument("source", metavar="BARS", help="parquet, CSV or DBN of any vendor")
    predict.add_argument(
        "--model", required=True, metavar="MODEL", help="a name in data/models, or a .safetensors file"
    )
    predict.add_argument(
        "-o", dest="output", required=True, metavar="FILE", help="detections (.parquet); each bar goes to .bars.parquet"
    )
    predict.add_argument("--csv", metavar="FILE", help="the detections for charting tools")
    predict.add_argument("--causal", action="store_true", help="answer each bar from the bars up to it only")
    predict.add_argument("--follow", action="store_true", help="go on as the file grows (causal), until interrupted")
    predict.add_argument("--stride", type=int, metavar="BARS", help="bars between windows (default 5)")
    confident = predict.add_mutually_exclusive_group()
    confident.add_argument("--threshold", type=float, help="least confidence of a detection, 0 to 1")
    confident.add_argument(
        "--alarms-per-session",
        type=float,
        metavar="N",
        help="false alarms to allow (default as the card was calibrated)",
    )
    predict.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    _add_reading(predict)
    predict.add_argument("--overwrite", action="store_true", help="replace existing outputs")

    evaluate = commands.add_parser("evaluate", help="would a model have worked on these bars?")
    evaluate.add_argument("model", metavar="MODEL", help="a name in data/models, or a .safetensors file")
    evaluate.add_argument("source", metavar="BARS", help="parquet, CSV or DBN of any vendor")
    evaluate.add_argument("labels", metavar="LABELS", nargs="?", help="a label table of these bars")
    evaluate.add_argument("--causal", action="store_true", help="answer each bar from the bars up to it only")
    evaluate.add_argument("--stride", type=int, metavar="BARS", help="bars between windows (default 5)")
    confident = evaluate.add_mutually_exclusive_group()
    confident.add_argument("--threshold", type=float, help="least confidence of a detection, 0 to 1")
    confident.add_argument("--alarms-per-session", type=float, metavar="N", help="false alarms to allow")
    evaluate.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    _add_reading(evaluate)

    calibrate = commands.add_parser("calibrate", help="set a model's threshold by false alarms a session")
    calibrate.add_argument("model", metavar="MODEL", help="a name in data/models, or a .safetensors file")
    calibrate.add_argument("source", metavar="BARS", help="sessions of the same instrument, not trained on")
    calibrate.add_argument("--alarms-per-session", type=float, metavar="N", help="to allow (default 2)")
    calibrate.add_argument("--causal", action="store_true", help="the threshold of causal scans")
    calibrate.add_argument("--stride", type=int, metavar="BARS", help="bars between windows (default 5)")
    calibrate.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    _add_reading(calibrate)

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
    features.add_argument("--verify", metavar="DIR", help="check the table in DIR; exit 3 if a check fails")
    features.add_argument("--bars", metavar="FILE", help="with --verify: the bars it was made from")

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
    return parser


def _add_reading(parser):
    """Add the options that say how a file of bars is read."""
    parser.add_argument("--tz", metavar="ZONE", help="zone of stamps that carry none, for example America/Chicago")
    parser.add_argument("--stamp", choices=("start", "end"), help="what the stamps mark, where the files do not tell")
    parser.add_argument("--symbol", metavar="NAME", help="which symbol, or the name of a series that has none")
    parser.add_argument("--scale", type=float, metavar="FACTOR", help="for prices that are not index-sized")


def _given(arguments, *names):
    """Return the options that were given, so that every default stays where it is defined."""
    return {name: getattr(arguments, name) for name in names if getattr(arguments, name) is not None}


def _run(arguments, models):
    from moola_lib.runs import engine, index, parameters_check, project, record, terminal

    root = project.find_root()
    if arguments.run_id == "":
        raise UserError("--run-id is empty; leave it out or give a name")
    if arguments.resume and not arguments.run_id:
        raise UserError("--resume needs --run-id, the run to continue")
    stems = sorted({project.resolve_stem(text, root) for text in arguments.stems})
    profile, given, resolved = arguments.profile, None, None
    is_bare = not (profile or arguments.file or arguments.pairs)
    if arguments.resume:
        before = record.read_run(root, project.check_run_id(arguments.run_id))
        stems = stems or before["stems"]
        profile = profile or before["profile"]
        if is_bare and all(stem in before["parameters"] for stem in stems):
            given, resolved = before["given_parameters"], before["parameters"]
    stems = stems or project.notebook_stems(root)
    if not stems:
        raise UserError(f"there are no notebooks in {root / 'notebooks'}")
    profile = profile or PROFILES[0]
    if given is None:
        if models is None:
            from moola_lib.runs.parameters import PARAMETERS as models
        given, resolved = parameters_check.gather_parameters(
            stems,
            models,
            root=root,
            profile=profile,
            file=arguments.file,
            pairs=arguments.pairs,
            before=before["given_parameters"] if arguments.resume and not arguments.profile else None,
        )
    with terminal.RunDisplay() as display:
        result = engine.run_notebooks(
            stems,
            given,
            root=root,
            run_id=arguments.run_id or record.default_run_id(profile),
            profile=profile,
            resume=arguments.resume,
            on_event=display.show,
            resolved_by_stem=resolved,
        )
    terminal.print_gates(result.record["gates"])
    terminal.print_inputs(root, result.record)
    print(index.build_index(root))
    if result.record["status"] == "interrupted":
        print(f"moola: run {result.record['run_id']} was interrupted", file=sys.stderr)
    elif result.record["error"] is not None:
        print(f"moola: {result.record['error']['message']}", file=sys.stderr)
    elif arguments.strict and any(g["verdict"] == "FAIL" for g in result.record["gates"]):
        return 3
    return result.exit_code


def _one_line(error):
    """Return an error's text on one line; what a damaged file holds must not steer the terminal."""
    text = " ".join(str(error).split())
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)


def _import(arguments):
    from moola_lib.runs.importing import import_bars

    reading = _given(arguments, "tz", "stamp", "symbol", "scale", "drop_budget")
    import_bars(arguments.files, arguments.output, is_overwriting=arguments.overwrite, **reading)
    return 0


def _calibrate(arguments):
    from moola_lib.runs.calibrating import calibrate_model

    calibrate_model(
        arguments.model,
        arguments.source,
        device=arguments.device,
        reading=_given(arguments, "tz", "stamp", "symbol", "scale"),
        is_causal=arguments.causal,
        **_given(arguments, "stride", "alarms_per_session"),
    )
    return 0


def _evaluate(arguments):
    from moola_lib.runs.evaluating import evaluate_bars

    evaluate_bars(
        arguments.source,
        arguments.model,
        arguments.labels,
        device=arguments.device,
        reading=_given(arguments, "tz", "stamp", "symbol", "scale"),
        is_causal=arguments.causal,
        **_given(arguments, "stride", "threshold", "alarms_per_session"),
    )
    return 0


def _predict(arguments):
    if arguments.follow:
        from moola_lib.runs.following import follow_bars as run
    else:
        from moola_lib.runs.predicting import predict_bars as run
    run(
        arguments.source,
        arguments.model,
        arguments.output,
        csv=arguments.csv,
        device=arguments.device,
        reading=_given(arguments, "tz", "stamp", "symbol", "scale"),
        is_overwriting=arguments.overwrite,
        is_causal=arguments.causal,
        **_given(arguments, "stride", "threshold", "alarms_per_session"),
    )
    return 0


def _features(arguments):
    from pathlib import Path

    if not arguments.source or not arguments.folder:
        raise UserError("features needs the bars and where to write: moola features BARS -o DIR (or --verify DIR)")
    if arguments.bars:
        raise UserError("--bars goes with --verify")
    reading = _given(arguments, "tz", "stamp", "symbol", "scale")
    options = _given(arguments, "feature_set", "zigzag", "k", "extra", "max_gap_minutes")
    splitting = _given(arguments, "fractions", "dates", "embargo_bars")
    if not Path(arguments.source).is_dir():
        if arguments.workers is not None:
            raise UserError("--workers goes with a folder of bar files")
        from moola_lib.runs import tables

        folder = arguments.folder
        made = tables.write_table(
            arguments.source, folder, reading=reading, options=options, splitting=splitting,
            overwrite=arguments.overwrite,
        )  # fmt: skip
        tables.print_table_made(folder, made)
        return 0
    if splitting or "symbol" in reading:
        given = next(iter([*splitting, "symbol"])).replace("_", "-")
        raise UserError(f"--{given} goes with a single series; {arguments.source} is a folder")
    from moola_lib.runs import tables_by_month
    from moola_lib.runs.terminal import say_count

    broken = tables_by_month.write_tables(
        arguments.source, arguments.folder, reading=reading, options=options, n_workers=arguments.workers,
        overwrite=arguments.overwrite, on_instrument=print,
    )  # fmt: skip
    n_instruments = len(tables_by_month.read_manifest(Path(arguments.folder))["instruments"])
    summary = f"{say_count(n_instruments, 'instrument')} in {arguments.folder}"
    if not broken:
        print(summary)
        return 0
    for sentence in [*broken, f"{summary}, {say_count(len(broken), 'problem')} (named above)"]:
        print(f"moola: {_one_line(sentence)}", file=sys.stderr)
    return 2


def _verify_features(arguments):
    from moola_lib.runs import tables_check

    if arguments.source or arguments.folder:
        raise UserError("--verify DIR reads a table; leave out BARS and -o (its bars are given with --bars FILE)")
    reading = _given(arguments, "tz", "stamp", "symbol", "scale")
    checks = tables_check.verify_folder(arguments.verify, source=arguments.bars, reading=reading)
    tables_check.print_checks(checks)
    return 3 if any((frame["verdict"] == "FAIL").any() for frame in checks.values()) else 0


def _promote(arguments):
    from moola_lib.runs import models, project, promoting

    if arguments.encoder and (arguments.arm is not None or arguments.fold is not None):
        raise UserError("--arm and --fold choose a fine-tuned model; leave them out with --encoder")
    root = project.find_root()
    options = _given(arguments, "arm", "fold", "encoder")
    promoting.promote(root, arguments.run_id, arguments.name, is_replacing=arguments.replace, **options)
    models.print_promoted(root, arguments.name)
    return 0


def _models(arguments):
    from moola_lib.runs import models, project

    if arguments.why and not arguments.name:
        raise UserError("--why says where one model came from; give its NAME")
    root = project.find_root()
    if arguments.name:
        models.print_model(root, arguments.name, is_why=arguments.why)
    else:
        models.print_models(root)
    return 0


def _index():
    from moola_lib.runs import index, project

    print(index.build_index(project.find_root()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
