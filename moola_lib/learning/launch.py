"""Start a pre-training on several ranks from a process that cannot be one, such as a notebook, and follow it."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import moola_lib
from moola_lib.errors import UserError
from moola_lib.learning.checkpoints import read_weights
from moola_lib.learning.job import GO_ON, IS_LAUNCHED, NAME, SECONDS_TO_END, save_job
from moola_lib.learning.pretrain import pretrain
from moola_lib.learning.ranks import check_gpus

LOG = "ranks.log"
FAILURE = re.compile(r"rank +: (\d+).*?exitcode +: (-?\d+)", re.DOTALL)  # of torchrun's summary


def pretrain_on_ranks(
    n_ranks,
    model,
    gather,
    train_places,
    validation_places,
    settings,
    *,
    objective=None,
    checkpoints,
    resume=False,
    on_epoch=None,
):
    """Pre-train as `pretrain` does, on several processes of this machine that share every batch.

    With one rank this is `pretrain` itself, in this process. Otherwise
    `torchrun` starts `moola_lib.learning.job`, and `on_epoch` is called here.
    Checkpoints are the same: what one number of ranks began, another may go on
    with. A lost rank ends the run, which is then resumed; nothing is restarted
    behind the scenes.

    Parameters
    ----------
    n_ranks : int
        On a GPU, each takes one; `settings.batch_size` is that of all together.
    checkpoints : Checkpoints
        In whose folder the ranks find their job, and leave their log if they fail.
    objective : Reconstruction or BarClassification, optional
        Made anew by each rank: of the former, from these arguments.
    model, gather, train_places, validation_places, settings, resume, on_epoch
        As in `pretrain`.

    Returns
    -------
    list of dict
        As `pretrain`. The model has the weights of its best epoch.

    Raises
    ------
    UserError
        As `pretrain`; or a rank broke down, or there are fewer GPUs than ranks.
    KeyboardInterrupt
        The ranks were interrupted as well, and saved their step.
    """
    options = {"objective": objective, "checkpoints": checkpoints, "resume": resume, "on_epoch": on_epoch}
    job, log = checkpoints.folder / NAME, checkpoints.folder / LOG
    if n_ranks == 1:
        history = pretrain(model, gather, train_places, validation_places, settings, **options)
        job.unlink(missing_ok=True)  # of several ranks that were interrupted
        log.unlink(missing_ok=True)
        return history
    if gather.device.type == "cuda":
        check_gpus(n_ranks)
    checkpoints.to_resume(resume)
    save_job(checkpoints, model, gather, train_places, validation_places, settings, objective=objective)
    history = _follow(n_ranks, checkpoints.folder, log, on_epoch)
    model.load_state_dict(read_weights(checkpoints.best, model))
    job.unlink()
    log.unlink()
    return history


def _follow(n_ranks, folder, log, on_epoch):
    """Run a job's ranks to their end; return the history that rank 0 tells."""
    history, errors = None, []
    with open(log, "w", encoding="utf-8") as stream:
        process = _start(n_ranks, folder, stream)
    try:
        for line in process.stdout:
            told = _read(line)
            if "row" in told:
                is_stopped = on_epoch is not None and on_epoch(told["row"])
                _answer(process, "stop" if is_stopped else GO_ON)
            history = told.get("history", history)
            errors += [told["error"]] if "error" in told else []
        process.wait()
    finally:
        _end(process)
    if errors:
        raise UserError(errors[0])
    if process.returncode or history is None:
        raise UserError(_explain(n_ranks, folder, log.read_text(encoding="utf-8", errors="replace")))
    return history


def _start(n_ranks, folder, stream):
    """Start torchrun in a session of its own: Ctrl-C is ours, and reaches the ranks once, by the pipe."""
    path = os.pathsep.join([str(Path(moola_lib.__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={n_ranks}"]
    return subprocess.Popen(
        [*command, "--max-restarts=0", "-m", "moola_lib.learning.job", str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=stream,
        text=True,
        env={**os.environ, "PYTHONPATH": path, IS_LAUNCHED: "1"},
        start_new_session=True,
    )


def _read(line):
    """Return what a rank tells, dict; a line that some library printed is passed on."""
    try:
        return dict(json.loads(line))
    except (ValueError, TypeError):
        print(line, end="")
        return {}


def _answer(process, word):
    """Answer rank 0, unless it is gone."""
    try:
        process.stdin.write(word + "\n")
        process.stdin.flush()
    except BrokenPipeError:
        pass  # its end is told by its exit code


def _end(process):
    """Close the pipe, at which ranks that still run save their step and end; kill torchrun where they do not."""
    process.stdin.close()
    try:
        process.wait(SECONDS_TO_END)
    except subprocess.TimeoutExpired:
        process.kill()  # its ranks notice, and end
        process.wait()
    process.stdout.close()


def _explain(n_ranks, folder, log):
    """Return a sentence on ranks that broke down, from torchrun's log."""
    failures = [(int(number), int(code)) for number, code in FAILURE.findall(log)]
    killed = [(number, signal.Signals(-code).name) for number, code in failures if code < 0 and code != -signal.SIGTERM]
    if killed:
        what = f"rank {killed[0][0]} was ended by {killed[0][1]}"
    elif failures:
        what = f"rank {failures[0][0]} failed"
    else:
        what = "they did not start, or torchrun was ended"
    return (
        f"pre-training on {n_ranks} ranks broke off: {what}; checkpoints are kept in {folder}: resume the run, "
        f"with any n_ranks, or look into {folder / LOG}"
    )
