"""The front door: `moola import`, `moola run`, `moola doctor`, `moola index`. Argument parsing only.

Every import of weight waits until its command runs: `moola --help` is instant.
"""

import argparse
import sys

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
        `--strict` (or the doctor says no), 130 interrupted.
    """
    arguments = _parser().parse_args(argv)
    try:
        if arguments.command == "run":
            return _run(arguments, models)
        if arguments.command == "import":
            return _import(arguments)
        if arguments.command == "doctor":
            from moola_lib.runs.doctor import doctor

            return doctor(arguments.device)
        return _index()
    except UserError as error:
        print(f"moola: {_one_line(error)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("moola: interrupted", file=sys.stderr)
        return 130


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
    bars.add_argument("--tz", metavar="ZONE", help="zone of stamps that carry none, for example America/Chicago")
    bars.add_argument("--stamp", choices=("start", "end"), help="what the stamps mark, where the files do not tell")
    bars.add_argument("--symbol", metavar="NAME", help="which symbol, or the name of a series that has none")
    bars.add_argument("--scale", type=float, default=1.0, metavar="FACTOR", help="for prices that are not index-sized")
    bars.add_argument(
        "--drop-budget", type=float, default=0.005, metavar="FRACTION", help="rows that may be dropped (default 0.005)"
    )
    bars.add_argument("--overwrite", action="store_true", help="replace an existing output")

    doctor = commands.add_parser("doctor", help="is this machine ready?")
    doctor.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")

    commands.add_parser("index", help="rebuild reports/index.html")
    return parser


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

    import_bars(
        arguments.files,
        arguments.output,
        is_overwriting=arguments.overwrite,
        tz=arguments.tz,
        stamp=arguments.stamp,
        symbol=arguments.symbol,
        scale=arguments.scale,
        drop_budget=arguments.drop_budget,
    )
    return 0


def _index():
    from moola_lib.runs import index, project

    print(index.build_index(project.find_root()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
