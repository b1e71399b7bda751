"""`moola models`: the named models, what became of their labels since, and where each came from."""

from moola_lib.errors import UserError
from moola_lib.files import read_json
from moola_lib.runs import lineage
from moola_lib.runs.html import format_date
from moola_lib.runs.project import artifacts_folder
from moola_lib.runs.promoting import BACKUPS, CARD_FILE, MODEL_FILE, models_folder
from moola_lib.runs.terminal import open_console, print_gates

NEEDED = {  # what is read of the notes of each kind of model
    "encoder": {"run_id", "metrics", "lineage"},
    "localiser": {"run_id", "metrics", "lineage", "arm", "chosen", "training_days"},
}
HEADINGS = ("name", "kind", "features", "bars", "labels", "figure (95%)", "best baseline", "promoted", "marks")


def list_cards(root):
    """Return the cards of all named models by name, and one sentence per damaged one."""
    cards, damaged = {}, []
    for folder in sorted(path for path in models_folder(root).glob("*") if path.is_dir()):
        if folder.name == BACKUPS or folder.name.startswith("."):
            continue
        try:
            cards[folder.name] = read_card(root, folder.name)
        except UserError as error:
            damaged.append(str(error))
    return cards, damaged


def read_card(root, name):
    """Read the card of a named model.

    Raises
    ------
    UserError
        There is no such model, listing those there are; or its card is damaged.
    """
    path = models_folder(root) / name / CARD_FILE
    if not path.parent.is_dir() or name == BACKUPS:
        folders = (each for each in models_folder(root).glob("[!.]*") if each.is_dir() and each.name != BACKUPS)
        known = ", ".join(sorted(each.name for each in folders))
        raise UserError(f"there is no model {name!r} (known: {known or 'none; name one with moola promote RUN NAME'})")
    card = read_json(path)
    is_card = isinstance(card, dict) and all(isinstance(card.get(key), dict) for key in ("model", "features", "notes"))
    if not is_card or not card["notes"].keys() >= NEEDED.get(card["notes"].get("kind"), {"kind"}):
        raise UserError(f"{path} is not the card of a promoted model; promote the model again")
    return card | {"notes": card["notes"] | {"name": name}}  # the folder's name counts, should it be renamed


def label_mark(root, card):
    """Say how a model's labels changed since it was trained; empty where they did not, or where nothing can tell.

    Parameters
    ----------
    root : Path
    card : dict

    Returns
    -------
    str
        "labels changed since: +3 −1 ~2 windows; re-scored on them: start within 3
        bars 0.62 (0.55 to 0.69)", or how to re-score it.
    """
    from moola_lib.labels.snapshots import compare_labels, fingerprint_labels, read_snapshot
    from moola_lib.labels.table import load_labels

    labels = card["notes"].get("labels") or {}
    if not labels.get("file") or not labels.get("fingerprint"):
        return ""
    path = lineage.local_path(labels["file"], root)
    if not path.exists():
        return ""
    try:
        current = load_labels(path).table
    except UserError:
        return f"its label file {path.name} cannot be read any more"
    found = fingerprint_labels(current)
    if found == labels["fingerprint"]:
        return ""
    try:
        trained_on = read_snapshot(lineage.snapshots_folder(root), labels["fingerprint"])
    except UserError:
        return "labels changed since (by how much is not known: their snapshot is missing or damaged)"
    return f"labels changed since: {compare_labels(trained_on, current)}; {_say_rescored(root, card, found, path)}"


def _say_rescored(root, card, fingerprint, path):
    """Say what a model scores on labels with that fingerprint, or which command finds it out."""
    notes = card["notes"]
    known = notes.get("rescored") or {}
    if known.get("labels") == fingerprint and known.get("metrics"):
        return f"re-scored on them: {known['metrics'][0]['meaning']} {_with_interval(known['metrics'][0])}"
    step = lineage.find_step(notes.get("lineage") or [], lineage.BARS)
    bars = artifacts_folder(root, str(step.get("run_id")), lineage.BARS) / "bars.parquet"
    where = [each.relative_to(root) if each.is_relative_to(root) else each for each in (bars, path)]
    given = f"{where[0] if bars.exists() else 'BARS'} {where[1]}"
    return f"re-score it with: moola evaluate {notes.get('name', 'NAME')} {given}"


def marks(root, card):
    """Return what a reader of the list must know of a model, as short texts."""
    notes = card["notes"]
    weights = models_folder(root) / notes["name"] / MODEL_FILE
    found = [
        label_mark(root, card),
        "" if weights.exists() else "weights missing on this machine",
        "simulated bars" if notes.get("is_simulated") else "",
        "labels proposed by a rule" if (notes.get("labels") or {}).get("is_proposed") else "",
        "code not committed" if (notes.get("git") or {}).get("is_dirty") else "",
    ]
    return [mark for mark in found if mark]


def print_models(root, stream=None):
    """Print all named models as a table; name damaged ones below it."""
    from rich.table import Table
    from rich.text import Text

    cards, damaged = list_cards(root)
    console = open_console(stream)
    if cards:
        table = Table(header_style="bold")
        for heading in HEADINGS:
            table.add_column(heading, overflow="fold")
        for card in cards.values():
            cells = [*_cells(card), "; ".join(marks(root, card))]
            table.add_row(*(Text(cell) for cell in cells))
        console.print(table)
    elif not damaged:
        console.print("no model has a name yet; name one with: moola promote RUN NAME")
    for sentence in damaged:
        console.print(f"damaged: {sentence}", markup=False, soft_wrap=True)


def print_model(root, name, *, is_why=False, stream=None):
    """Print the facts of one model with all its figures and gates, or its ancestry.

    Raises
    ------
    UserError
        As `read_card`.
    """
    card = read_card(root, name)
    console = open_console(stream)
    lines = trace(root, card) if is_why else describe(root, card)
    console.print("\n".join(lines), markup=False, soft_wrap=True)
    if not is_why:
        console.print(f"gates {card['notes'].get('gates_note', 'of the whole run')}:", markup=False, soft_wrap=True)
        print_gates([{"notebook": "", **gate} for gate in card["notes"].get("gates") or []], stream)


def print_promoted(root, name, stream=None):
    """Say where a model now lies, and which of its run it is."""
    notes = read_card(root, name)["notes"]
    which = f", arm {notes['arm']}, {notes['chosen']}" if "arm" in notes else ""
    lines = [f"{models_folder(root) / name / MODEL_FILE}: {notes['kind']} of run {notes['run_id']}{which}"]
    lines += [f"{say_figure(row)} ({notes['metrics_note']})" for row in notes["metrics"][:1]]
    open_console(stream).print("\n".join(lines), markup=False, soft_wrap=True)


def describe(root, card):
    """Return the lines that say what a model is and how good it was."""
    rows = dict(zip(HEADINGS, [*_cells(card), "; ".join(marks(root, card)) or "none"], strict=True))
    lines = [f"{heading}: {cell}" for heading, cell in rows.items()]
    metrics = card["notes"]["metrics"]
    return [*lines, f"figures {card['notes'].get('metrics_note', '')}:", *(f"  {say_figure(row)}" for row in metrics)]


def say_figure(row):
    """Return a row of figures as text: meaning, value, interval, best baseline."""
    baseline = say_baseline(row)
    return f"{row['meaning']} {_with_interval(row)}" + (f", best baseline {baseline}" if baseline else "")


def say_baseline(row):
    """Return the best baseline of a figure with its value; empty where there is none."""
    return f"{row['best_baseline']} {row['baseline']:.3g}" if row.get("best_baseline") else ""


def trace(root, card):
    """Return the ancestry of a model as lines, down to the raw file; what is not on this machine is said to be.

    Parameters
    ----------
    root : Path
    card : dict

    Returns
    -------
    list of str
    """
    notes, steps = card["notes"], card["notes"]["lineage"]
    is_encoder = notes["kind"] == "encoder"
    has_weights = (models_folder(root) / notes["name"] / MODEL_FILE).exists()
    lines = [
        f"{notes['name']}: {card['model']['name']} ({notes['kind']}) of {card['n_parameters']:,} parameters, "
        f"weights {card['weights_fingerprint']}, promoted {format_date(notes.get('promoted_at'))}"
        + ("" if has_weights else "; weights missing on this machine")
    ]
    if not is_encoder:
        lines += ["<- fine-tuning", *_step_lines(root, steps, lineage.FINE_TUNING)]
        days = len(notes["training_days"])
        lines.append(f"     arm {notes['arm']}, {notes['chosen']}")
        lines.append(
            f"     {notes.get('n_training_windows')} training windows on {days} days, seed {notes.get('seed')}"
        )
        lines += _labels_lines(root, notes)
        lines += _step_lines(root, steps, lineage.LABELS)
        lines += _encoder_lines(root, notes.get("began_with"))
    if is_encoder or notes.get("began_with"):
        lines += ["<- pre-training", *_step_lines(root, steps, lineage.PRETRAINING)]
    features, bars = card["features"], notes.get("bars") or {}
    lines.append(f"<- features {features['set_id']}, {len(features['names'])} columns")
    lines.append(f"<- bars {bars.get('fingerprint')}: {_say_bars(bars)}")
    lines += _step_lines(root, steps, lineage.BARS)
    return [*lines, _raw_line(root, notes, steps)]


def _labels_lines(root, notes):
    """Return the lines on the labels' snapshot, and what became of it."""
    from moola_lib.labels.snapshots import snapshot_path

    labels = notes.get("labels") or {}
    found = labels.get("fingerprint")
    if not found:
        return ["<- labels: no snapshot was recorded"]
    is_here = snapshot_path(lineage.snapshots_folder(root), found).exists()
    lines = [f"<- labels {found}: {_say_labels(labels)}" + ("" if is_here else "; snapshot missing on this machine")]
    if labels.get("file"):
        is_there = lineage.local_path(labels["file"], root).exists()
        lines.append(f"     from {labels['file']}" + ("" if is_there else ", missing on this machine"))
    mark = label_mark(root, {"notes": notes})
    return [*lines, f"     {mark}"] if mark else lines


def _encoder_lines(root, began_with):
    """Return the line on the weights that training began with."""
    if not began_with:
        return ["<- a random start, no pre-training"]
    found = began_with["weights_fingerprint"]
    kind = "encoder" if began_with["file"].startswith("encoder") else "pre-trained model"
    line = f"<- {kind} {found}: {began_with['file']} of run {began_with['run_id']}"
    path = artifacts_folder(root, str(began_with["run_id"]), lineage.PRETRAINING) / began_with["file"]
    try:
        own = read_json(path.with_suffix(".json")).get("weights_fingerprint")
    except UserError:
        return [f"{line}; missing on this machine"]
    return [line if own == found else f"{line}; other weights are there now ({own})"]


def _step_lines(root, steps, stem):
    """Return the lines on one notebook's run: id, date, commit, parameters that are not defaults."""
    step = lineage.find_step(steps, stem)
    if not step:
        return [f"     {stem}: not recorded"]
    status = lineage.step_status(root, step)
    ending = f"; {status}" if status else ""
    if "unknown" in step:
        return [f"     {stem} of run {step['run_id']}{ending}"]
    git = step["git"]
    commit = f"commit {git['commit'][:12]}" if git.get("commit") else "commit not recorded"
    dirty = " with uncommitted changes" if git.get("is_dirty") else ""
    lines = [f"     {stem} of run {step['run_id']}, {format_date(step['finished_at'])}, {commit}{dirty}{ending}"]
    changed = ", ".join(f"{name} = {value}" for name, value in step["parameters"].items())
    return [*lines, f"     not defaults: {changed}"] if changed else lines


def _raw_line(root, notes, steps):
    """Return the line on the file that the bars were read from."""
    if notes.get("raw"):
        raw, step = notes["raw"], lineage.find_step(steps, lineage.BARS)
        told = f"<- raw file {raw['name']}, fingerprint {raw['fingerprint'] or 'not recorded'}"
        return told if lineage.has_raw(root, step) else f"{told}; missing on this machine"
    is_known = "unknown" not in lineage.find_step(steps, lineage.BARS)
    return "<- no raw file: the bars are simulated" if is_known and notes.get("is_simulated") else "<- raw file unknown"


def _cells(card):
    """Return the cells of a model's row, without its marks."""
    notes = card["notes"]
    headline = next(iter(notes["metrics"]), None)
    return [
        notes["name"],
        f"{card['model']['name']} ({notes['kind']})",
        card["features"]["set_id"],
        _say_bars(notes.get("bars") or {}),
        _say_labels(notes["labels"]) if notes.get("labels") else "",
        f"{headline['meaning']} {_with_interval(headline)}" if headline else "",
        say_baseline(headline) if headline else "",
        format_date(notes.get("promoted_at")),
    ]


def _say_bars(bars):
    """Return symbol and range of bars as text."""
    days = [str(bars[name])[:10] for name in ("first_bar", "last_bar") if bars.get(name)]
    return " ".join([str(bars.get("symbol") or "unknown"), " to ".join(days) or "(range not recorded)"])


def _say_labels(labels):
    """Return number and states of labels as text."""
    if "n_windows" not in labels:
        return "not recorded"
    states = ", ".join(f"{count} {state}" for state, count in (labels.get("by_state") or {}).items())
    return f"{labels['n_windows']} windows ({states})"


def _with_interval(row):
    """Return a figure with its interval, where it has one."""
    if row.get("value") is None:
        return "not defined"
    if row.get("low") is None or row.get("high") is None:
        return f"{row['value']:.3g}"
    return f"{row['value']:.3g} ({row['low']:.3g} to {row['high']:.3g})"
