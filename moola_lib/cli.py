"""The front door: each command of `runs.arguments` handed to the room that does it, errors as one sentence.

Every import of weight waits until its command runs: `moola --help` is instant.
"""

import contextlib
import os
import signal
import sys
import threading

from moola_lib.errors import UserError, one_line
from moola_lib.runs.arguments import build_parser


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
        `--strict` (or the doctor, `features --verify` or `rerun` says no), 4 a key
        was found in what a run wrote, 130 interrupted, 138 the kernel died, 141 the
        reader of the output has gone (`moola status | head`).
    """
    arguments = build_parser().parse_args(argv)
    try:
        with _sigterm_interrupts():
            code = COMMANDS[arguments.command](arguments, models)
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python complains once more at its end
        return 141
    except UserError as error:
        print(f"moola: {one_line(error)}", file=sys.stderr)
        return 2
    except PermissionError as error:
        print(f"moola: {one_line(error.filename or error)} may not be read; change its permissions", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        advice = "; run the same command again to go on" if arguments.command in ("import", "features", "sweep") else ""
        print(f"moola: interrupted{advice}", file=sys.stderr)
        return 130


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


def _given(arguments, *names):
    """Return the options that were given, so that every default stays where it is defined."""
    return {name: getattr(arguments, name) for name in names if getattr(arguments, name) is not None}


def _run(arguments, models):
    from moola_lib.runs import engine, planning, project, rerunning, terminal

    root = project.find_root()
    plan = planning.plan_run(
        root, arguments.stems, run_id=arguments.run_id, profile=arguments.profile, file=arguments.file,
        pairs=arguments.pairs, is_resuming=arguments.resume, models=models,
    )  # fmt: skip
    with terminal.steady_output():
        with terminal.RunDisplay() as display:
            result = engine.run_notebooks(
                plan.stems, plan.given, root=root, run_id=plan.run_id, profile=plan.profile, resume=arguments.resume,
                on_event=display.show, resolved_by_stem=plan.resolved, is_strict=arguments.strict,
                cell_timeout=arguments.cell_timeout,
            )  # fmt: skip
        return _close_run(root, rerunning.judge(root, result))


def _rerun(arguments, models):
    from moola_lib.runs import project, rerunning, terminal

    root = project.find_root()
    plan = rerunning.plan_rerun(root, arguments.original, run_id=arguments.run_id, models=models)
    rerunning.print_plan(plan)
    with terminal.steady_output():
        with terminal.RunDisplay() as display:
            result = rerunning.rerun(plan, on_event=display.show, is_strict=arguments.strict)
        return _close_run(root, result)


def _sweep(arguments, models):
    from moola_lib.runs.sweeps.command import sweep

    return sweep(arguments, models)


def _close_run(root, result):
    """Print how a run ended, rebuild the index, and return the run's exit code."""
    from moola_lib.runs import index, rerunning, terminal

    record = result.record
    try:
        page = index.build_index(root)
        terminal.print_gates(record["gates"])
        terminal.print_inputs(root, record)
        print(page)
    except UserError as error:  # the run is over, and its exit code stands
        print(f"moola: {one_line(error)}", file=sys.stderr)
    rerunning.print_outcome(record)
    terminal.print_end(record)
    return result.exit_code


def _status(arguments, models):
    from moola_lib.runs import project, status

    return status.print_status(project.find_root(), arguments.run_id, is_json=arguments.json)


def _doctor(arguments, models):
    from moola_lib.runs.doctor import doctor

    return doctor(arguments.device)


def _import(arguments, models):
    from moola_lib.runs.importing import import_bars

    reading = _given(arguments, "tz", "stamp", "symbol", "scale", "drop_budget")
    import_bars(arguments.files, arguments.output, is_overwriting=arguments.overwrite, **reading)
    return 0


def _labels(arguments, models):
    from moola_lib.runs.converting import convert_labels

    options = _given(arguments, "bars", "symbol")
    convert_labels(arguments.source, arguments.output, is_overwriting=arguments.overwrite, **options)
    return 0


def _calibrate(arguments, models):
    from moola_lib.runs.calibrating import calibrate_model

    calibrate_model(arguments.model, arguments.source, **_scanning(arguments, "alarms_per_session"))
    return 0


def _label(arguments, models):
    from moola_lib.runs.labelling import open_studio

    reading = _given(arguments, "tz", "stamp", "symbol", "scale")
    return open_studio(arguments.table, reading=reading, **_given(arguments, "bars", "proposals", "annotator"))


def _evaluate(arguments, models):
    from moola_lib.runs.evaluating import evaluate_bars

    if arguments.walk_forward is not None and not arguments.labels:
        raise UserError("--walk-forward trains and tests on labels; give LABELS after BARS")
    options = _scanning(arguments, "threshold", "alarms_per_session", "walk_forward")
    evaluate_bars(arguments.source, arguments.model, arguments.labels, **options)
    return 0


def _predict(arguments, models):
    if arguments.follow:
        from moola_lib.runs.following import follow_bars as run
    else:
        from moola_lib.runs.predicting import predict_bars as run
    options = _scanning(arguments, "threshold", "alarms_per_session")
    options |= {"csv": arguments.csv, "is_overwriting": arguments.overwrite}
    run(arguments.source, arguments.model, arguments.output, **options)
    return 0


def _scanning(arguments, *names):
    """Return the options of a model's walk over bars, with those named that were given."""
    return {
        "device": arguments.device,
        "reading": _given(arguments, "tz", "stamp", "symbol", "scale"),
        "is_causal": arguments.causal,
        **_given(arguments, "stride", *names),
    }


def _features(arguments, models):
    from pathlib import Path

    if arguments.verify:
        return _verify_features(arguments)
    if not arguments.source or not arguments.folder:
        raise UserError("features needs the bars and where to write: moola features BARS -o DIR (or --verify DIR)")
    if arguments.bars:
        raise UserError("--bars goes with --verify")
    reading = _given(arguments, "tz", "stamp", "symbol", "scale")
    options = _given(arguments, "feature_set", "zigzag", "k", "extra", "max_gap_minutes")
    splitting = _given(arguments, "fractions", "dates", "embargo_bars")
    if not Path(arguments.source).is_dir():
        for name in ("workers", "scheduler"):
            if getattr(arguments, name) is not None:
                raise UserError(f"--{name} goes with a folder of bar files")
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
        scheduler=arguments.scheduler, overwrite=arguments.overwrite, on_instrument=print,
    )  # fmt: skip
    n_instruments = len(tables_by_month.read_manifest(Path(arguments.folder))["instruments"])
    summary = f"{say_count(n_instruments, 'instrument')} in {arguments.folder}"
    if not broken:
        print(summary)
        return 0
    for sentence in [*broken, f"{summary}, {say_count(len(broken), 'problem')} (named above)"]:
        print(f"moola: {one_line(sentence)}", file=sys.stderr)
    return 2


def _verify_features(arguments):
    from moola_lib.runs import tables_check

    if arguments.source or arguments.folder:
        raise UserError("--verify DIR reads a table; leave out BARS and -o (its bars are given with --bars FILE)")
    reading = _given(arguments, "tz", "stamp", "symbol", "scale")
    checks = tables_check.verify_folder(arguments.verify, source=arguments.bars, reading=reading)
    tables_check.print_checks(checks)
    return 3 if any((frame["verdict"] == "FAIL").any() for frame in checks.values()) else 0


def _report(arguments, models):
    from moola_lib.runs.reporting import report_run

    pages = report_run(
        arguments.run_id, arguments.notebooks, output=arguments.output,
        is_single_file=arguments.single_file, is_code_shown=arguments.show_code,
    )  # fmt: skip
    print(*pages, sep="\n")
    return 0


def _promote(arguments, models):
    from moola_lib.runs import models, project, promoting

    if arguments.encoder and (arguments.arm is not None or arguments.fold is not None):
        raise UserError("--arm and --fold choose a fine-tuned model; leave them out with --encoder")
    root = project.find_root()
    options = _given(arguments, "arm", "fold", "encoder")
    promoting.promote(root, arguments.run_id, arguments.name, is_replacing=arguments.replace, **options)
    models.print_promoted(root, arguments.name)
    return 0


def _models(arguments, models):
    from moola_lib.runs import models, project

    if arguments.why and not arguments.name:
        raise UserError("--why says where one model came from; give its NAME")
    root = project.find_root()
    if arguments.name:
        models.print_model(root, arguments.name, is_why=arguments.why)
    else:
        models.print_models(root)
    return 0


def _compare(arguments, models):
    from moola_lib.runs import comparing, comparison_page, project

    root = project.find_root()
    comparison = comparing.compare_runs(root, arguments.run_ids, arguments.baseline)
    comparison_page.print_comparison(comparison)
    print(comparison_page.write_comparison(root, comparison))
    return 0


def _export(arguments, models):
    from moola_lib.runs import disk, exporting, project, tracking

    if not (arguments.output or arguments.mlflow or arguments.tensorboard):
        raise UserError("export needs where to: -o FILE.zip, --mlflow STORE or --tensorboard DIR")
    if (arguments.parts or arguments.overwrite) and not arguments.output:
        raise UserError("--with and --overwrite go with -o FILE.zip")
    root = project.find_root()
    if arguments.output:
        parts = [part.strip() for part in (arguments.parts or "").split(",") if part.strip()]
        contents = exporting.export_run(
            root, arguments.run_id, arguments.output, parts, is_overwriting=arguments.overwrite
        )
        for name, size in contents:
            print(f"{disk.say_bytes(size):>10} {name}")
        print(arguments.output)
    if arguments.mlflow:
        print(f"MLflow run {tracking.export_to_mlflow(root, arguments.run_id, arguments.mlflow)} in {arguments.mlflow}")
    if arguments.tensorboard:
        print(tracking.export_to_tensorboard(root, arguments.run_id, arguments.tensorboard))
    return 0


def _gc(arguments, models):
    from moola_lib.runs import disk, project

    options = _given(arguments, "keep", "older_than")
    return disk.collect(project.find_root(), is_dry=arguments.dry_run, is_sure=arguments.yes, **options)


def _index(arguments, models):
    from moola_lib.runs import index, project

    print(index.build_index(project.find_root()))
    return 0


def _pod(arguments, models):
    from moola_lib.runs.pods.commands import run_command

    return run_command(arguments, models)


COMMANDS = {
    "run": _run,
    "rerun": _rerun,
    "sweep": _sweep,
    "status": _status,
    "import": _import,
    "labels": _labels,
    "label": _label,
    "features": _features,
    "predict": _predict,
    "evaluate": _evaluate,
    "calibrate": _calibrate,
    "promote": _promote,
    "models": _models,
    "report": _report,
    "index": _index,
    "compare": _compare,
    "export": _export,
    "gc": _gc,
    "doctor": _doctor,
    "pod": _pod,
}

if __name__ == "__main__":
    sys.exit(main())
