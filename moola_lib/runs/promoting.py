"""`moola promote`: give a model of a run a name, with a card that says all that is known of it."""

import re
import time
from pathlib import Path

from moola_lib.errors import UserError
from moola_lib.files import lock_folder, plain, read_json, replace_folder_atomically
from moola_lib.runs import lineage
from moola_lib.runs.project import artifacts_folder, check_run_id
from moola_lib.runs.record import notebook_record, utc_now

BACKUPS = "backups"
MODEL_FILE, CARD_FILE = "model.safetensors", "model.json"
SCORED_FOLDERS = ("repeat1", "causal")  # further repeats are scored together only
FIGURES = ("metric", "meaning", "unit", "value", "low", "high", "n", "best_baseline")
DIFFERENCES = ("difference", "difference_low", "difference_high")


def models_folder(root):
    """Return the folder of all named models."""
    return root / "data" / "models"


def promote(root, run_id, name, *, arm="pre-trained", fold=None, encoder=None, is_replacing=False):
    """Give a fine-tuned model of a run, or an encoder, a stable name.

    Parameters
    ----------
    root : Path
    run_id : str
    name : str
        The model's folder is `data/models/<name>`.
    arm : str
        Which way of training, as notebook 04 calls it.
    fold : int, optional
        From 1; default the one trained on the most recent days.
    encoder : str, optional
        Stem of the weights that notebook 03 left, such as "encoder", instead.
    is_replacing : bool
        Move a model of that name to `data/models/backups/` first.

    Returns
    -------
    (Path, dict)
        The model's folder, and its card.

    Raises
    ------
    UserError
        The run, arm, fold or file is not there, the name is taken or not
        allowed, or weights and card are damaged. Nothing is written then.
    """
    from moola_lib.models.weights import load_model, save_model

    _check_name(name)
    if run_id != "manual":  # reserved, and yet a run's
        check_run_id(run_id)
    folder = models_folder(root) / name
    _refuse_taken(folder, is_replacing)
    source, told = _describe_encoder(root, run_id, encoder) if encoder else _describe_fold(root, run_id, arm, fold)
    model, card = load_model(source)
    notes = {"name": name, **told, "promoted_at": utc_now()}
    with lock_folder(models_folder(root)):
        _refuse_taken(folder, is_replacing)
        with replace_folder_atomically(folder) as temporary:
            made = save_model(model, temporary / MODEL_FILE, features=card["features"], notes=plain(notes))
            if made["weights_fingerprint"] != card["weights_fingerprint"]:
                raise UserError(
                    f"{source} holds other weights ({made['weights_fingerprint']}) than its card says "
                    f"({card['weights_fingerprint']}); it was changed after the run, promote another"
                )
            if folder.exists():
                _back_up(folder)
    return folder, made


def _describe_fold(root, run_id, arm, fold):
    """Return the weights of one fold of an arm, and the notes of its card."""
    record = lineage.require_record(root, run_id, lineage.FINE_TUNING)
    folder = artifacts_folder(root, run_id, lineage.FINE_TUNING)
    source, notes, n_folds, chosen = _choose_fold(folder, run_id, record, arm, fold)
    steps = lineage.trace_steps(root, record)
    summary = read_json(folder / "cv_summary.json")
    scores = summary.get("arms", {}).get(arm, [])
    labels_run = record.get("upstream_runs", {}).get(lineage.LABELS)
    labels_file = lineage.labels_path(root, labels_run) if labels_run else None
    of_what = (
        "the reserved days, which no fold was trained on" if summary.get("is_exam") else "days left out of training"
    )
    each = "by this model" if n_folds == 1 else f"by the model of its own fold; all {n_folds} folds of the arm together"
    return source, {
        **notes,
        "kind": "localiser",
        "chosen": chosen,
        "n_folds": n_folds,
        "bars": notes.get("bars") or _known_bars(record, steps),
        "labels": {**(notes.get("labels") or {}), "file": labels_file},
        "metrics": [_shorten(row) for row in scores],
        "metrics_note": f"on {of_what}, each answered {each}" if scores else "this arm has no cross-validated figures",
        "gates_note": "of the whole run; its learning gates judge the arm pre-trained",
        **_facts_of_run(root, record, steps),
    }


def _describe_encoder(root, run_id, stem):
    """Return the weights that pre-training left, and the notes of their card."""
    fine_tuning = notebook_record(root, run_id, lineage.FINE_TUNING) or {}
    if notebook_record(root, run_id, lineage.PRETRAINING) is None:
        # a run of notebook 04 alone: the encoder is that of the run it was built on
        run_id = fine_tuning.get("upstream_runs", {}).get(lineage.PRETRAINING, run_id)
    record = lineage.require_record(root, run_id, lineage.PRETRAINING)
    folder = artifacts_folder(root, run_id, lineage.PRETRAINING)
    source = folder / f"{stem}.safetensors"
    if not stem.startswith("encoder") or not source.exists():
        known = ", ".join(sorted(path.stem for path in folder.glob("encoder*.safetensors"))) or "none"
        raise UserError(f"run {run_id} has no encoder {stem!r}; it has {known}")
    own = read_json(source.with_suffix(".json")).get("notes") or {}
    steps = lineage.trace_steps(root, record)
    return source, {
        **own,
        "kind": "encoder",
        "bars": _known_bars(record, steps),
        "metrics": _pretraining_figures(own),
        "metrics_note": "of pre-training: Huber on the days that chose its epoch, macro F1 on test days",
        **_facts_of_run(root, record, steps),
    }


def _pretraining_figures(notes):
    """Return the figures of a pre-trainer's card as rows; they have no intervals."""
    found = {"validation_huber": ("validation Huber on hidden bars", notes.get("validation_huber"))}
    for task, value in (notes.get("macro_f1") or {}).items():
        found[f"macro_f1_{task}"] = (f"macro F1 of {task}", value)
    return [
        {"metric": metric, "meaning": meaning, "value": value}
        for metric, (meaning, value) in found.items()
        if value is not None
    ]


def _choose_fold(folder, run_id, record, arm, fold):
    """Return (weights, notes, number of folds, which was chosen and why) of an arm."""
    by_arm = _find_models(folder, record.get("seed"))
    if not by_arm:
        raise UserError(
            f"run {run_id} kept no models of {lineage.FINE_TUNING}: it is older than their keeping, "
            f"or they were deleted; run `moola run {lineage.FINE_TUNING}` again"
        )
    if arm not in by_arm:
        raise UserError(f"run {run_id} has no arm {arm!r}; it has {'; '.join(sorted(by_arm))}")
    folds = by_arm[arm]
    if fold is not None and fold not in folds:
        raise UserError(f"arm {arm} of run {run_id} has no fold {fold}; it has {', '.join(map(str, sorted(folds)))}")
    is_asked = fold is not None
    if not is_asked:
        fold = max(sorted(folds), key=lambda k: sorted(folds[k][1]["training_days"], reverse=True))
    source, notes = folds[fold]
    n_folds = len(folds)
    why = "as asked for" if is_asked else "the one trained on the most recent days"
    return source, notes, n_folds, f"fold {fold} of {n_folds}, {why} (to {notes['training_days'][-1]})"


def _find_models(folder, seed):
    """Return {arm: {fold: (path of the weights, notes)}} of the models that a run kept and scored."""
    found = {}
    for part in SCORED_FOLDERS:
        for card in sorted((folder / "checkpoints" / part).rglob(CARD_FILE)):
            notes = read_json(card).get("notes") or {}
            if notes.keys() >= {"arm", "fold", "training_days"} and notes.get("seed") == seed:
                found.setdefault(notes["arm"], {})[notes["fold"]] = (card.with_name(MODEL_FILE), notes)
    return found


def _known_bars(record, steps):
    """Return what the records say of the bars of a run whose models do not say it themselves."""
    data, bars = record.get("data") or {}, lineage.find_step(steps, lineage.BARS).get("data") or {}
    known = {"fingerprint": data.get("fingerprint"), "symbol": data.get("symbol")}
    if bars.get("fingerprint") == data.get("fingerprint"):
        known |= {name: bars[name] for name in ("n_bars", "first_bar", "last_bar") if name in bars}
    return known


def _facts_of_run(root, record, steps):
    """Return what a card says of the run itself."""
    data = record.get("data") or {}
    return {
        "run_id": record["run_id"],
        "seed": record.get("seed"),
        "is_simulated": data.get("is_simulated"),
        "git": record.get("git") or {"commit": None, "is_dirty": None},
        "versions": {name: (record.get("versions") or {}).get(name) for name in lineage.VERSIONS},
        "gates": record.get("gates") or [],
        "raw": lineage.describe_raw(root, lineage.find_step(steps, lineage.BARS)),
        "lineage": steps,
    }


def _shorten(row):
    """Return a row of figures with its best baseline's alone."""
    best = row.get("best_baseline")
    return {name: row.get(name) for name in (*FIGURES, *DIFFERENCES)} | {"baseline": row.get(best) if best else None}


def _check_name(name):
    """Refuse a name that cannot be a folder."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", name) or name == BACKUPS:
        raise UserError(
            f"a model cannot be called {name!r}; use letters, digits, '.', '_' and '-', starting with a letter or "
            f"digit, and not {BACKUPS!r}"
        )


def _refuse_taken(folder, is_replacing):
    """Refuse a name that another model has."""
    if folder.exists() and not is_replacing:
        raise UserError(
            f"there is a model {folder.name!r} already; choose another name, or replace it with --replace "
            f"(it is then moved to {folder.parent / BACKUPS})"
        )


def _back_up(folder):
    """Move a model to the backups, under its name and the time."""
    backup = folder.parent / BACKUPS / f"{folder.name}-{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}"
    while backup.exists():  # several within one second
        backup = Path(f"{backup}b")
    try:
        backup.parent.mkdir(parents=True, exist_ok=True)
        folder.rename(backup)
    except OSError as error:
        raise UserError(f"cannot write {backup}: {error.strerror or error}; the model is left as it was") from error
