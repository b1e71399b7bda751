"""What a run shows in the terminal: live lines, or plain ones when piped."""

import contextlib
import os
import sys
import time

from moola_lib.runs.notebook import epoch_line, format_seconds
from moola_lib.runs.record import notebook_record

_COLOURS = {"PASS": "green", "FAIL": "bold red", "finished": "green", "failed": "bold red"}
_MARKS = {"finished": "✓", "failed": "✗", "interrupted": "■"}


@contextlib.contextmanager
def steady_output():
    """Let a run outlive whoever reads its output: a closed terminal, `moola run | head`."""
    with contextlib.redirect_stdout(_Steady(sys.stdout)), contextlib.redirect_stderr(_Steady(sys.stderr)):
        try:
            yield
        finally:
            sys.stdout.flush()
            sys.stderr.flush()


class _Steady:
    """A text stream that falls silent once it cannot be written."""

    def __init__(self, stream):
        self._stream = stream

    def __getattr__(self, name):
        return getattr(self._stream, name)

    def write(self, text):
        """Write text, perhaps to nobody."""
        try:
            self._stream.write(text)
        except OSError:
            self._fall_silent()
        return len(text)

    def flush(self):
        """Write what is buffered, perhaps to nobody."""
        try:
            self._stream.flush()
        except OSError:
            self._fall_silent()

    def _fall_silent(self):
        os.dup2(os.open(os.devnull, os.O_WRONLY), self._stream.fileno())


class RunDisplay:
    """Show the engine's events; pass `display.show` as its `on_event`.

    On a terminal one live block tells notebook, cell, time, the kernel's memory and the epoch. Elsewhere
    plain lines: one at each notebook's start and end, and at most one per ten
    seconds of training.
    """

    seconds_between_lines = 10.0

    def __init__(self, stream=None):
        from rich.console import Console
        from rich.live import Live

        stream = stream or sys.stdout
        self.console = Console(file=stream, highlight=False, soft_wrap=not stream.isatty())
        self._event, self._epoch, self._memory, self._began, self._last_line = None, "", "", 0.0, 0.0
        self._live = None
        if self.console.is_terminal:
            self._live = Live(self, console=self.console, refresh_per_second=4, transient=True)

    def __enter__(self):
        """Start the live block, on a terminal."""
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *exception):
        """Leave the terminal as it was."""
        self._event = None
        if self._live:
            self._live.stop()

    def __rich__(self):
        """Return the live block: notebook, cell, time, memory; below them the epoch."""
        from rich.text import Text

        if self._event is None:
            return Text("")
        event, text = self._event, Text()
        text.append(f"{event['number']}/{event['total']} ", style="dim")
        text.append(event["stem"], style="bold")
        if "cell" in event:
            text.append(f"  cell {event['cell']}/{event['n_cells']}", style="dim")
        text.append(f"  {format_seconds(time.monotonic() - self._began)}{self._memory}", style="dim")
        if self._epoch:
            text.append(f"\n    {self._epoch}")
        return text

    def show(self, event):
        """Show one event of `run_notebooks`."""
        kind, now = event["kind"], time.monotonic()
        place = f"{event['number']}/{event['total']} {event['stem']}"
        if kind == "started":
            self._event, self._epoch, self._memory, self._began, self._last_line = event, "", "", now, now
            if not self._live:
                self.console.print(f"{place} started", markup=False)
        elif kind == "cell":
            self._event = event
        elif kind == "memory":
            self._memory = f"  {event['bytes'] / 1e9:.1f} GB"
        elif kind == "epoch" and "epoch" in event["row"]:
            self._epoch = epoch_line(event["row"])
            if not self._live and now - self._last_line >= self.seconds_between_lines:
                self._last_line = now
                self.console.print(f"    {self._epoch}", markup=False)
        elif kind == "skipped":
            self.console.print(f"{place} was finished already", markup=False)
        elif kind == "ended":
            self._event = None
            status = event["status"]
            self.console.print(
                f"{_MARKS.get(status, ' ')} {place} {status} in {format_seconds(event['seconds'])}",
                style=_COLOURS.get(status, "yellow"),
                markup=False,
            )


def print_gates(gates, stream=None):
    """Print the gates of a run as one table.

    Parameters
    ----------
    gates : list of dict
        The notebooks' gates, each with `notebook` beside the keys of a gate.
    """
    from rich.table import Table
    from rich.text import Text

    if not gates:
        return
    table = Table(title="Gates", title_justify="left", title_style="bold", header_style="bold")
    for name in ("notebook", "gate", "value", "95% interval", "target", "best baseline"):
        table.add_column(name, justify="right" if name in ("value", "95% interval") else "left")
    table.add_column("verdict", no_wrap=True)
    for gate in gates:
        verdict = str(gate.get("verdict", ""))
        low, high = gate.get("low"), gate.get("high")
        interval = "" if low is None or high is None else f"{_number(low)} to {_number(high)}"
        cells = [
            gate.get("notebook", ""), gate.get("name", ""), _number(gate.get("value")), interval,
            gate.get("target", ""), gate.get("baseline") or "",
        ]  # fmt: skip
        table.add_row(*(Text(str(c)) for c in cells), Text(verdict, style=_COLOURS.get(verdict, "")))
    open_console(stream).print(table)


def print_end(record, stream=None):
    """Say on standard error why a run did not finish, or what is kept back; nothing where all is well."""
    stream = stream or sys.stderr
    error = record.get("error")
    if record["status"] == "interrupted":
        print(
            f"moola: run {record['run_id']} was interrupted; continue with "
            f"`moola run --resume --run-id {record['run_id']}`",
            file=stream,
        )
    elif error is not None:
        print(f"moola: {error['message']}", file=stream)
        if error["ename"] == "DeadKernelError" and error.get("last_lines"):
            print("the last lines of the log:", *error["last_lines"], sep="\n  ", file=stream)
    for stem, found in (record.get("withheld") or {}).items():
        if error is None or error["ename"] != "KeyFound":
            print(f"moola: the report of {stem} is withheld, {'; '.join(found)}", file=stream)


def open_console(stream=None):
    """Return a rich console for tables, on standard output unless a text stream is given.

    A pipe has no width: without one, rich would cut every line at 80 characters.
    """
    from rich.console import Console

    stream = stream or sys.stdout
    return Console(file=stream, highlight=False, width=None if stream.isatty() else 140)


def say_count(count, noun):
    """Return a count with its noun: "1 bar", "1,380 bars"."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def _number(value):
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return f"{value:.4g}"
    return "" if value is None else str(value)


def print_inputs(root, record):
    """Say in a line or two what the figures rest on: the data, and notebooks of other runs.

    Parameters
    ----------
    root : Path
    record : dict
        Of the run.
    """
    data = record["data"]
    if data:
        kind = {True: "simulated", False: "real"}.get(data.get("is_simulated"), "unknown")
        labels = f", labels from {data['label_source']}" if data.get("label_source") else ""
        print(f"data: {kind} bars {data.get('symbol', '')} ({data.get('fingerprint', 'no fingerprint')}){labels}")
    for stem in record["stems"]:
        own = notebook_record(root, record["run_id"], stem) or {}
        others = {s: run for s, run in own.get("upstream_runs", {}).items() if run != record["run_id"]}
        if others:
            print(f"{stem} built on " + ", ".join(f"{s} of run {run}" for s, run in others.items()))
