"""What a run will be: its notebooks, profile and parameters, as given or as its record has them."""

from dataclasses import dataclass

from moola_lib.errors import UserError
from moola_lib.runs import record as records
from moola_lib.runs.arguments import PROFILES
from moola_lib.runs.parameters_check import gather_parameters
from moola_lib.runs.project import check_run_id, notebook_stems, resolve_stem


@dataclass(frozen=True)
class RunPlan:
    """What `run_notebooks` is asked for.

    Attributes
    ----------
    run_id, profile : str
    stems : list of str
        Notebooks, in order.
    given, resolved : dict of str to dict
        By notebook: what differs from the defaults, and every parameter.
    """

    run_id: str
    profile: str
    stems: list
    given: dict
    resolved: dict


def plan_run(root, notebooks=(), *, run_id=None, profile=None, file=None, pairs=(), is_resuming=False, models=None):
    """Check what a run is asked for, before anything starts.

    Parameters
    ----------
    root : Path
    notebooks : list of str
        "03", "03_pretraining" or a path; default the whole chain, and of a run that
        continues what it began with.
    run_id : str, optional
        Default the time and the profile.
    profile : str, optional
        Default quick, and of a run that continues what it began with.
    file : str or Path, optional
        YAML file of parameters.
    pairs : list of (str, str)
        Name and value in YAML of single parameters.
    is_resuming : bool
        The run exists: what is not given here is taken from its record.
    models : dict, optional
        Stem to parameter model, default `moola_lib.runs.parameters.PARAMETERS`.

    Returns
    -------
    RunPlan

    Raises
    ------
    UserError
        A notebook, parameter or run does not exist, or a value is not allowed.
    """
    if run_id == "":
        raise UserError("--run-id is empty; leave it out or give a name")
    if is_resuming and not run_id:
        raise UserError("--resume needs --run-id, the run to continue")
    stems = sorted({resolve_stem(text, root) for text in notebooks})
    before = records.read_run(root, check_run_id(run_id)) if is_resuming else None
    if before:
        stems = stems or before["stems"]
    stems = stems or notebook_stems(root)
    if not stems:
        raise UserError(f"there are no notebooks in {root / 'notebooks'}")
    is_as_before = before and not (profile or file or pairs) and all(stem in before["parameters"] for stem in stems)
    if is_as_before:
        return RunPlan(run_id, before["profile"], stems, before["given_parameters"], before["parameters"])
    is_profile_kept = before and not profile
    profile = profile or (before["profile"] if before else PROFILES[0])
    if models is None:
        from moola_lib.runs.parameters import PARAMETERS as models
    given, resolved = gather_parameters(
        stems, models, root=root, profile=profile, file=file, pairs=pairs,
        before=before["given_parameters"] if is_profile_kept else None,
    )  # fmt: skip
    return RunPlan(run_id or records.default_run_id(profile), profile, stems, given, resolved)
