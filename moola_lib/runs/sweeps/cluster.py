"""Dask: a cluster of this machine's processes, one GPU each where there are any, or one that is there already."""

import contextlib
import logging
import os
import subprocess
import uuid
import warnings

from moola_lib.errors import UserError
from moola_lib.runs.sweeps import worker

PRELOAD = "moola_lib.runs.sweeps.worker"
SECONDS_TO_CONNECT = 15
DASHBOARD = "127.0.0.1:8787"  # another port where that one is taken


@contextlib.contextmanager
def open_cluster(n_workers=None, *, n_losses=3, uses_gpu=True):
    """Start workers on this machine; yield a client.

    Parameters
    ----------
    n_workers : int, optional
        Processes of one thread. Default one per GPU, else one per core.
    n_losses : int
        Workers that one task may lose before it counts as failed.
    uses_gpu : bool
        Give each worker a GPU of its own where there are any.

    Raises
    ------
    UserError
        Dask is not installed, or there are fewer GPUs than workers.
    """
    distributed = require("distributed", "cluster")
    import dask

    gpus = find_gpus() if uses_gpu else []
    n_workers = n_workers or len(gpus) or len(os.sched_getaffinity(0))
    if gpus and n_workers > len(gpus):
        raise UserError(f"{n_workers} workers would share {len(gpus)} GPU(s); give --workers {len(gpus)} or fewer")
    options = {"nthreads": 1, "memory_limit": 0, "preload": [PRELOAD], "silence_logs": logging.CRITICAL}
    workers = {}
    for number in range(n_workers):
        own = {"env": {"CUDA_VISIBLE_DEVICES": gpus[number]}, "resources": {"GPU": 1}} if gpus else {}
        workers[number] = {"cls": distributed.Nanny, "options": options | own}
    scheduler = {"host": "127.0.0.1", "port": 0, "dashboard": True, "dashboard_address": DASHBOARD}
    with contextlib.ExitStack() as stack:
        stack.enter_context(dask.config.set({"distributed.scheduler.allowed-failures": n_losses - 1}))
        stack.enter_context(warnings.catch_warnings())
        warnings.filterwarnings("ignore", "Port .* is already in use")
        cluster = stack.enter_context(
            distributed.SpecCluster(
                workers=workers,
                scheduler={"cls": distributed.Scheduler, "options": scheduler},
                silence_logs=logging.CRITICAL,
            )
        )
        yield stack.enter_context(distributed.Client(cluster, set_as_default=False))


@contextlib.contextmanager
def join_cluster(address, folder):
    """Connect to a scheduler that is running; yield a client whose workers can do a project's work.

    Parameters
    ----------
    address : str
        `tcp://HOST:PORT`.
    folder : Path
        Every worker must see it under the same path.

    Raises
    ------
    UserError
        Dask is not installed, nobody answers, no worker is there, or one has several
        threads or does not see the folder.
    """
    distributed = require("distributed", "cluster")
    for name in ("distributed", "distributed.client"):  # a lost connection is said here, in a sentence
        logging.getLogger(name).setLevel(logging.CRITICAL)
    try:
        client = distributed.Client(address, timeout=SECONDS_TO_CONNECT, set_as_default=False)
    except (OSError, ValueError) as error:
        raise UserError(
            f"no scheduler answers at {address}; start one with `dask scheduler` and give the tcp:// address it prints"
        ) from error
    with client:
        try:
            client.wait_for_workers(1, timeout=SECONDS_TO_CONNECT)
        except TimeoutError as error:
            raise UserError(
                f"the scheduler at {address} has no worker; start one with `dask worker {address} --nthreads 1`"
            ) from error
        _check_workers(client, folder)
        yield client


def list_workers(client):
    """Return the facts of each worker of a client's cluster.

    Raises
    ------
    UserError
        The scheduler is gone.
    """
    try:
        if client.status == "running":
            return list(client.scheduler_info(n_workers=-1)["workers"].values())
    except OSError:  # as Dask's own errors of a connection are
        pass
    raise UserError("the scheduler is gone; start it again, and the same command goes on")


def find_dashboard(client):
    """Return the address of a cluster's dashboard, or None where it has none."""
    has_dashboard = "dashboard" in client.scheduler_info(n_workers=1).get("services", {})
    return client.dashboard_link if has_dashboard else None


def find_gpus():
    """Return the GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them."""
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    if given is not None:
        return [name.strip() for name in given.split(",") if name.strip() not in ("", "-1")]
    try:
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=10, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    return [str(number) for number in range(sum(line.startswith("GPU ") for line in listed.splitlines()))]


def require(module, extra):
    """Import an optional package, or say how to install it."""
    import importlib

    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise UserError(
            f"this needs {module}, which is not installed; install it with: "
            f"pip install -c constraints.txt -e '.[{extra}]'"
        ) from error


def _check_workers(client, folder):
    """Refuse workers with several threads (a run sets its process's environment), or that do not see the folder."""
    for facts in list_workers(client):
        if facts["nthreads"] != 1:
            raise UserError(f"worker {facts['name']} has {facts['nthreads']} threads; start it with --nthreads 1")
    token = folder / f".seen-{uuid.uuid4().hex}"
    token.touch()
    try:
        seen = client.run(worker.see_file, str(token))
    except ImportError as error:
        raise UserError(f"a worker cannot import moola_lib ({error}); start it in the project's environment") from error
    finally:
        token.unlink()
    blind = [address for address, is_seen in seen.items() if not is_seen]
    if blind:
        raise UserError(f"worker {blind[0]} does not see {folder}; share that folder with it under the same path")
