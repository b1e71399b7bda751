"""On the pod: stop it when its run has ended, failed or idles, whoever is asleep; never before the run is sealed.

RunPod's own `--stop-after` was accepted and ignored for a long time, so nothing
here trusts it.
"""

import contextlib
import json
import os
import shutil
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path

from moola_lib.runs.pods import AGENT, API_URL, states, supervisor
from moola_lib.runs.processes import describe_process, is_alive

LEAST_CPU = 0.01  # of one core: below it, a run does nothing


def arm(folder):
    """Start the watchdog of a run's folder in the background, instead of those that are there already."""
    folder = Path(folder)
    process = read_notes(folder).get("process")
    if process and is_alive(process):
        os.kill(process["pid"], 9)
    (folder / "stop").unlink(missing_ok=True)  # of the time before a restart
    states.lock_path().with_suffix(".run").write_text(states.read_job(folder)["run_id"])
    if os.fork():
        return 0
    supervisor.detach()
    try:
        Watchdog(folder).watch()
    finally:
        os._exit(0)


def take_charge(folder):
    """See that the run which has begun is watched: another one may have been prepared since its watchdog was armed.

    Its time goes on where its watchdog lives; a run that never had one needs none.
    """
    process = read_notes(folder).get("process")
    is_own = states.newest_run() == states.read_job(folder)["run_id"]
    return 0 if not process or (is_own and is_alive(process)) else arm(folder)


def is_watching(folder):
    """Tell whether this run's watchdog lives, or a later run's is in charge; a pod that was restarted has neither.

    A run that was fetched needs none: who has started its pod again has a reason.
    """
    if (folder / "fetched").exists():
        return True
    if states.newest_run() not in ("", states.read_job(folder)["run_id"]):
        return True
    process = read_notes(folder).get("process")
    return bool(process) and bool(is_alive(process))


def read_notes(folder):
    """Return what the watchdog says of itself: `process`, `deadline_at`, `can_stop`, `stopping` (why), `error`."""
    with contextlib.suppress(OSError, ValueError):
        return json.loads((Path(folder) / "watchdog.json").read_text(encoding="utf-8"))
    return {}


class Watchdog:
    """What the watchdog has seen so far; times are of the monotonic clock, which nobody sets.

    Parameters
    ----------
    folder : Path
        Of the run on the pod; its job says `max_hours`, `grace_minutes`,
        `prepare_minutes`, `is_kept`, `poll_seconds`.
    """

    def __init__(self, folder):
        self.folder, self.job = Path(folder), states.read_job(folder)
        self.environment = states.pod_environment()
        self.began = time.monotonic()
        self.last_state, self.since = None, self.began
        self.cpu, self.busy_at = 0.0, self.began
        self.notes = {
            "process": describe_process(),
            "deadline_at": time.time() + self.job["max_hours"] * 3600,
            "can_stop": "RUNPOD_POD_ID" in self.environment,
        }

    def watch(self):
        """Look until the pod is stopped, or was prepared for another run, which has a watchdog of its own."""
        while self.is_in_charge():
            self.write_notes()
            time.sleep(self.job["poll_seconds"])
            state = self.look()
            reason = self.decide(state, time.monotonic())
            if reason is None:
                continue
            if state == states.RUNNING:
                self.write_notes(stopping=reason)
                self.end_run()
                if reason.startswith("idle"):
                    continue  # its results may be fetched first
            if not self.is_in_charge():
                return
            self.write_notes(stopping=reason, error=stop_pod(self.environment))
            time.sleep(self.job["retry_seconds"])  # it ends here, where the pod stops

    def end_run(self):
        """End the run, asked first and then killed; whatever goes wrong with that, the pod is stopped afterwards."""
        try:
            is_alive_still = supervisor.end(self.folder)
        except (OSError, ValueError, KeyError) as error:
            self.write_notes(trouble=f"the run was not asked to end ({type(error).__name__}: {error})")
            is_alive_still = True
        if is_alive_still:
            kill_tree(states.read_state(self.folder).get("run"))

    def is_in_charge(self):
        """Tell whether the pod was not prepared for another run since."""
        return states.newest_run() in ("", self.job["run_id"])

    def look(self):
        """Return the run's state; one that cannot be read is lost, for the pod must stop all the same."""
        try:
            return states.settle_state(self.folder)["state"]
        except (OSError, ValueError, KeyError):
            return states.LOST

    def decide(self, state, now):
        """Return why the pod is to be stopped now, or None."""
        job, minute = self.job, 60.0
        if state != self.last_state:
            self.last_state, self.since, self.busy_at = state, now, now
        if (self.folder / "stop").exists():
            return "asked to"
        if now - self.began > job["max_hours"] * 3600:
            return f"{job['max_hours']:g} hours are over"
        if job["is_kept"]:
            return None
        if state == states.PREPARING and now - self.since > job["prepare_minutes"] * minute:
            return "nothing was started"
        if state == states.ENDED and (self.folder / "fetched").exists():
            return "the run has ended and its results were fetched"
        if state in (states.ENDED, states.LOST) and now - self.since > self.grace() * minute:
            return f"the run has {'ended' if state == states.ENDED else 'died'}"
        if state == states.RUNNING and self.is_idle(now):
            return f"idle for {job['idle_minutes']:g} minutes"
        return None

    def grace(self):
        """Return the minutes that a run which is over waits: longer, once a client has begun to fetch."""
        return self.job["prepare_minutes" if (self.folder / "fetching").exists() else "grace_minutes"]

    def is_idle(self, now):
        """Tell whether the run's processes have used no CPU for longer than the job allows."""
        cpu = cpu_seconds(states.read_state(self.folder).get("run"))
        if cpu - self.cpu > LEAST_CPU * self.job["poll_seconds"] or cpu < self.cpu:
            self.busy_at = now
        self.cpu = cpu
        return now - self.busy_at > self.job["idle_minutes"] * 60

    def write_notes(self, **notes):
        """Write what the watchdog says of itself; a full disk keeps the old."""
        self.notes |= notes
        with contextlib.suppress(OSError):
            beside = self.folder / "watchdog.new"
            beside.write_text(json.dumps(self.notes), encoding="utf-8")
            beside.replace(self.folder / "watchdog.json")


def stop_pod(environment):
    """Stop this pod, by `runpodctl` where it is there and else by the REST API; return what went wrong, or None."""
    pod_id, key = environment.get("RUNPOD_POD_ID"), environment.get(supervisor.KEY, "").strip()
    if not pod_id:
        return "this machine has no RUNPOD_POD_ID, so it cannot stop itself"
    errors = []
    tool = shutil.which("runpodctl", path=environment.get("PATH"))
    for words in (("pod", "stop", pod_id), ("stop", "pod", pod_id)) if tool else ():
        try:
            done = subprocess.run([tool, *words], env=environment, capture_output=True, text=True, timeout=120)
        except (OSError, subprocess.TimeoutExpired) as error:
            errors.append(f"runpodctl: {type(error).__name__}")
            continue
        if done.returncode == 0:
            return None
        said = (done.stderr or done.stdout).strip()
        errors.append(f"runpodctl: {(said.replace(key, '[withheld]') if key else said)[-200:]}")
    if not key:
        return "; ".join([*errors, f"there is no {supervisor.KEY} in the container's environment"])
    url = environment.get("RUNPOD_API_URL", API_URL)
    request = urllib.request.Request(f"{url}/pods/{pod_id}/stop", method="POST")
    request.add_header("Authorization", f"Bearer {key}")
    request.add_header("User-Agent", AGENT)
    try:
        with urllib.request.urlopen(request, timeout=60):
            return None
    except OSError as error:
        return "; ".join([*errors, f"REST: {error}"])
    except ValueError as error:
        return "; ".join([*errors, f"REST: {type(error).__name__}"])  # its text may hold the key


def cpu_seconds(process):
    """Return the CPU seconds that a process and those below it have used."""
    if not process or not is_alive(process):
        return 0.0
    parents, ticks = {}, {}
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError, ValueError, IndexError):
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
            pid = int(folder.name)
            parents[pid], ticks[pid] = int(fields[1]), sum(map(int, fields[11:15]))
    return sum(ticks[pid] for pid in _family(process["pid"], parents) if pid in ticks) / os.sysconf("SC_CLK_TCK")


def kill_tree(process):
    """Kill a process and those below it."""
    if not process or not is_alive(process):
        return
    parents = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError, ValueError, IndexError):
            parents[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
    for pid in _family(process["pid"], parents):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, 9)


def _family(pid, parents):
    """Return a process and all below it."""
    family, is_growing = {pid}, True
    while is_growing:
        found = {child for child, parent in parents.items() if parent in family} - family
        family, is_growing = family | found, bool(found)
    return family
