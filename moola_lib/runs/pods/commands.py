"""`moola pod …`: what the words mean, and who does it."""

import sys

from moola_lib.errors import UserError

EPILOG = """\
HOST:PORT is the pod's SSH over exposed TCP (RunPod's Connect tab); POD_ID asks RunPod's API for it.
Keys come from the environment only: RUNPOD_API_KEY for POD_ID, prices, stop --delete and reap.
exit codes: those of `moola run`, and 75 where another run has the pod
"""


def add_arguments(commands, profiles, formatter):
    """Add `pod` and its commands to the parser of `moola`.

    Parameters
    ----------
    commands : argparse subparsers
    profiles : sequence of str
    formatter : argparse formatter class
        That leaves the epilog as it is.
    """
    pod = commands.add_parser("pod", help="run on a rented GPU machine (RunPod), and stop it afterwards")
    verbs = pod.add_subparsers(dest="verb", required=True, metavar="VERB")
    run = verbs.add_parser(
        "run", help="send a run to a pod and bring its results", epilog=EPILOG, formatter_class=formatter
    )
    run.add_argument("target", metavar="TARGET", help="HOST:PORT or POD_ID")
    run.add_argument("stems", nargs="*", metavar="STEM", help="03, 03_pretraining or a path (default the whole chain)")
    run.add_argument("--profile", choices=profiles, help="scale of the run (default quick)")
    run.add_argument(
        "-p", dest="pairs", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"),
        help="one parameter; the files that parameters name are sent along",
    )  # fmt: skip
    run.add_argument("--run-id", help="name of the run (default UTC time and profile)")
    run.add_argument("--resume", action="store_true", help="continue the run --run-id names from the pod's volume")
    run.add_argument(
        "--keep", action="store_true", default=None, help="let the pod go on after the run (--max-hours still holds)"
    )
    run.add_argument(
        "--max-hours", type=_hours, metavar="H", help="stop the pod after so long at the latest (default 24)"
    )
    run.add_argument("--identity", metavar="KEY", help="private key for ssh (default what ssh takes)")
    run.add_argument("--python", metavar="PATH", help="use this Python of the pod as it is, and install nothing")
    run.add_argument("--detach", "--no-wait", action="store_true", help="return once it runs")
    helps = {
        "status": "how far is it, what does it cost, when does the pod stop?",
        "logs": "print the log as it is",
        "attach": "follow the log from where it was last shown, then fetch",
        "fetch": "bring the results home, compared file by file",
        "stop": "end the run, fetch, and stop the pod",
    }
    for name, text in helps.items():
        verb = verbs.add_parser(name, help=text)
        verb.add_argument("target", nargs="?", metavar="RUN", help="a run id, HOST:PORT or POD_ID (default the newest)")
        verb.add_argument("--at", metavar="HOST:PORT", help="where the pod is now, if it was restarted elsewhere")
        if name == "stop":
            verb.add_argument("--delete", action="store_true", help="delete pod and volume, once everything is fetched")
    reap = verbs.add_parser("reap", help="list the account's pods; stop those whose run is over")
    reap.add_argument("--yes", action="store_true", help="do not ask")


def run_command(arguments, models=None):
    """Do what `moola pod …` asks for; return the exit code."""
    from moola_lib.runs import project

    return VERBS[arguments.verb](project.find_root(), arguments, models)


def _run(root, arguments, models):
    from moola_lib.runs.planning import plan_run
    from moola_lib.runs.pods import ledger
    from moola_lib.runs.pods.address import parse_target
    from moola_lib.runs.pods.launch import PodInUse, launch, relaunch
    from moola_lib.runs.pods.reaching import Wishes
    from moola_lib.runs.pods.states import IN_USE

    target = parse_target(arguments.target)
    options = {"identity": arguments.identity, "is_kept": arguments.keep, "max_hours": arguments.max_hours}
    options = {name: value for name, value in options.items() if value is not None}
    try:
        if arguments.resume:
            if not arguments.run_id or arguments.stems or arguments.pairs or arguments.profile:
                raise UserError("--resume takes --run-id alone: notebooks and parameters stay as they were")
            before = ledger.find_entry(root, arguments.run_id)
            options = {name: before[name] for name in ("identity", "is_kept", "max_hours")} | options
            wishes = Wishes(python=arguments.python, **options)
            entry = relaunch(root, before, target, wishes, say=_say)
        else:
            wishes = Wishes(python=arguments.python, **options)
            if models is None:
                from moola_lib.runs.parameters import PARAMETERS as models
            plan = plan_run(
                root, arguments.stems, run_id=arguments.run_id, profile=arguments.profile, pairs=arguments.pairs,
                models=models,
            )  # fmt: skip
            entry = launch(root, target, plan, arguments.pairs, models, wishes, say=_say)
    except PodInUse as error:
        print(f"moola: {error}", file=sys.stderr)
        return IN_USE
    if arguments.detach:
        _say(f"see it with `moola pod attach {entry['run_id']}`")
        return 0
    return _follow(root, entry)


def _attach(root, arguments, models):
    return _follow(root, _started(root, arguments))


def _follow(root, entry):
    """Show the log to its end, fetch, and return the exit code of the run."""
    from moola_lib.runs.pods import fetch, following, states
    from moola_lib.runs.record import RUNNER_KILLED

    try:
        status = following.follow_log(root, entry, say=_say)
    except KeyboardInterrupt:
        _say(f"the run goes on without you; see it with `moola pod attach {entry['run_id']}`")
        raise
    if status["state"] == states.LOST:
        print(f"moola: run {entry['run_id']} is lost: {following.advise_lost(entry)}", file=sys.stderr)
        return RUNNER_KILLED
    if not entry["fetched_at"]:
        fetch.fetch(root, entry, say=_say)
    _say(following.say_cost(entry))
    return status["exit_code"]


def _status(root, arguments, models):
    from moola_lib.runs.pods.following import print_status

    print_status(root, _entry(root, arguments))
    return 0


def _logs(root, arguments, models):
    from moola_lib.runs.pods.following import print_log

    print_log(root, _started(root, arguments), say=_say)
    return 0


def _fetch(root, arguments, models):
    from moola_lib.runs.pods.fetch import fetch

    fetch(root, _started(root, arguments), say=_say)
    return 0


def _stop(root, arguments, models):
    from moola_lib.runs.pods import ledger, wallet

    text = arguments.target
    if text and not any(text in ledger.names_of(entry) for entry in ledger.read_entries(root)):
        wallet.stop_unknown(root, text, is_deleting=arguments.delete, say=_say)
    else:
        wallet.stop(root, ledger.find_entry(root, text), at=arguments.at, is_deleting=arguments.delete, say=_say)
    return 0


def _reap(root, arguments, models):
    from moola_lib.runs.pods.wallet import reap

    return 2 if reap(root, is_sure=arguments.yes) else 0


def _entry(root, arguments):
    """Return the ledger's entry of the run meant, its address as it is now."""
    from moola_lib.runs.pods.address import parse_target
    from moola_lib.runs.pods.ledger import find_entry
    from moola_lib.runs.pods.reaching import find_again

    entry = find_entry(root, arguments.target)
    at = parse_target(arguments.at) if arguments.at else None
    if at and not at.host:
        raise UserError("--at takes HOST:PORT")
    find_again(entry, at)
    return entry


def _started(root, arguments):
    """Return the entry of a run that has begun on its pod."""
    entry = _entry(root, arguments)
    if not entry["is_started"]:
        raise UserError(f"run {entry['run_id']!r} was never started on its pod; send it again with `moola pod run`")
    return entry


def _say(text):
    """Print a step at once; the log of the run comes between."""
    print(text, flush=True)


def _hours(text):
    """Read a duration above 0."""
    hours = float(text)
    if not 0 < hours < float("inf"):
        raise ValueError
    return hours


_hours.__name__ = "number of hours above 0"  # argparse names it where it refuses

VERBS = {
    "run": _run,
    "status": _status,
    "logs": _logs,
    "attach": _attach,
    "fetch": _fetch,
    "stop": _stop,
    "reap": _reap,
}
