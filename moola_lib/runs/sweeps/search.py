"""A search by Optuna: the next arm from those tried, its study in a journal that a killed sweep continues."""

import json

from moola_lib.runs.sweeps.cluster import require
from moola_lib.runs.sweeps.ledger import FAILED, FINISHED
from moola_lib.runs.sweeps.results import read_figures

JOURNAL = "study.jsonl"
SEED = 17
N_TRIALS = 20  # where neither the YAML nor the command says; TPE draws the first ten at random


class Search:
    """A study of one sweep; a trial is an arm, its figure the mean over seeds.

    Parameters
    ----------
    sweep : Sweep
    folder : Path
        Holds the journal.
    n_trials : int, optional
        In all starts together; default the YAML's.

    Raises
    ------
    UserError
        Optuna is not installed.
    """

    def __init__(self, sweep, folder, n_trials=None):
        self._optuna = optuna = require("optuna", "search")
        from optuna.storages.journal import JournalFileBackend

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self._sweep, self._followed = sweep, {}
        self._n_trials = n_trials or sweep.n_trials or N_TRIALS
        storage = optuna.storages.JournalStorage(JournalFileBackend(str(folder / JOURNAL)))
        direction = "maximize" if sweep.is_higher_better else "minimize"
        # Over other ranges, or of other runs, it is another study.
        asked = [sweep.stem, sweep.profile, sweep.fixed, sweep.seeds, sweep.metric, direction, sweep.search]
        name = json.dumps(asked, sort_keys=True)
        self._study = optuna.create_study(storage=storage, study_name=name, direction=direction, load_if_exists=True)
        for trial in self._study.get_trials(deepcopy=False):  # killed while it was proposed
            if trial.params.keys() != sweep.search.keys() and not trial.state.is_finished():
                self._study.tell(trial.number, state=optuna.trial.TrialState.FAIL)
        n_known = len(self._study.get_trials(deepcopy=False))
        # Parallel trials keep away from each other; a continued study must not draw its first numbers again.
        self._study.sampler = optuna.samplers.TPESampler(seed=SEED + n_known, constant_liar=True)

    def trials(self):
        """Return (number, point) of every trial so far."""
        trials = self._study.get_trials(deepcopy=False)
        return [
            (each.number, self._read(each.params)) for each in trials if each.params.keys() == self._sweep.search.keys()
        ]

    def refuse(self, number):
        """Say that a trial's combination is not allowed: it counts, and is never run."""
        if not self._study.get_trials(deepcopy=False)[number].state.is_finished():
            self._study.tell(number, state=self._optuna.trial.TrialState.FAIL)

    def n_left(self):
        """Return how many trials are still to be proposed."""
        return max(self._n_trials - len(self._study.get_trials(deepcopy=False)), 0)

    def ask(self):
        """Return (number, point) of a new trial."""
        trial = self._study.ask()
        for name, given in self._sweep.search.items():
            if "choices" in given:
                trial.suggest_categorical(name, [json.dumps(choice) for choice in given["choices"]])
            elif type(given["low"]) is int and type(given["high"]) is int:
                trial.suggest_int(name, given["low"], given["high"], log=given["log"])
            else:
                trial.suggest_float(name, given["low"], given["high"], log=given["log"])
        return trial.number, self._read(trial.params)

    def follow(self, number, run_ids):
        """Say which runs a trial is made of."""
        self._followed[number] = run_ids

    def tell(self, root, state):
        """Tell the study of every trial whose runs have all ended: their mean, or that one failed."""
        states = self._optuna.trial.TrialState
        running = {trial.number for trial in self._study.get_trials(deepcopy=False, states=[states.RUNNING])}
        for number in running & self._followed.keys():
            entries = [state["runs"][run_id] for run_id in self._followed[number]]
            if any(entry["status"] == FAILED for entry in entries):
                self._study.tell(number, state=states.FAIL)
            elif all(entry["status"] == FINISHED for entry in entries):
                values = [
                    read_figures(root, run_id, state["notebook"]).get(state["metric"], (None,))[0]
                    for run_id in self._followed[number]
                ]
                if None in values:
                    self._study.tell(number, state=states.FAIL)
                else:
                    self._study.tell(number, sum(values) / len(values))

    def _read(self, params):
        """Return a trial's parameters as the YAML has them."""
        is_choice = {name: "choices" in given for name, given in self._sweep.search.items()}
        return {name: json.loads(value) if is_choice[name] else value for name, value in params.items()}
