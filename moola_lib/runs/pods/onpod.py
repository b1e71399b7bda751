"""The pod's end of the line: `python -m moola_lib.runs.pods.onpod VERB FOLDER`, called over ssh."""

import json
import sys
from pathlib import Path

from moola_lib.runs.pods import seals, states, supervisor, watchdog


def main(verb, folder, *more):
    """Do what the client asks; return the exit code."""
    if verb == "arm":
        lock = states.take_lock()
        if lock is None:
            print(states.lock_holder())
            return states.IN_USE
        states.write_state(folder, {"state": states.PREPARING})
        lock.close()
        return watchdog.arm(folder)
    if verb == "watch":
        return 0 if watchdog.is_watching(Path(folder)) else watchdog.arm(folder)
    if verb == "start":
        return supervisor.start(folder) or watchdog.take_charge(folder)
    if verb == "status":
        notes = watchdog.read_notes(folder) | {"is_watching": watchdog.is_watching(Path(folder))}
        print(json.dumps(states.settle_state(folder) | {"watchdog": notes, "holder": states.holder_at_work()}))
        return 0
    if verb == "follow":
        return supervisor.follow(folder, int(*more))
    if verb == "end":
        return supervisor.end(folder)
    if verb == "seal":
        Path(folder, "fetching").touch()
        print(json.dumps(seals.seal(folder)))
        return 0
    if verb in ("fetched", "stop"):
        Path(folder, verb).touch()
        return 0
    print(f"{verb} is unknown here", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
