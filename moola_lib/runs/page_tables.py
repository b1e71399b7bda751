"""Tables of a report: aligned by what they hold, verdicts that read without colour, each in its own scroller."""

import re

from bs4 import Tag

MARKS = {"PASS": "✓", "FAIL": "✗", "OFF": "–", "NOT A SCALE": "○"}
_ABSENT = ("NaN", "NaT", "None", "<NA>")
_NUMBER = re.compile(r"([-+−]?[\d.,]+(e[-+]?\d+)?\s?%?|NaN|NaT|None|<NA>|True|False|)")


def prepare_tables(tree):
    """Mark up every table of a page, in place.

    Parameters
    ----------
    tree : BeautifulSoup
        Frames are known by pandas' class (`dataframe`) or id (`T_…`, its Styler).
    """
    for table in tree.find_all("table"):
        if "dataframe" in table.get("class", []) or table.get("id", "").startswith("T_"):
            _strip_styler(table)
            _mark_cells(table)
            _mark_columns(table)
        _mark_headers(table)
        table.wrap(tree.new_tag("div", attrs={"class": "scroll"})).wrap(tree.new_tag("div", attrs={"class": "table"}))


def move_verdicts(tree):
    """Put the verdicts of the gates' table beside the gates' names; return them.

    Returns
    -------
    list of str
        Empty if no table has the columns `gate` and `verdict`.
    """
    for table in tree.find_all("table"):
        names = [cell.get_text(strip=True) for cell in table.select("thead tr:last-child > *")]
        if "gate" not in names or "verdict" not in names:
            continue
        verdicts = []
        for row in table.find_all("tr"):
            cells = row.find_all(["th", "td"])
            verdict = cells[names.index("verdict")]
            verdicts += [verdict["data-verdict"]] if verdict.get("data-verdict") else []
            cells[names.index("gate")].insert_after(verdict.extract())
        return verdicts
    return []


def _strip_styler(table):
    """Remove the ids and classes of pandas' Styler, unless its style sheet needs them."""
    is_styled = table.find_previous_sibling("style") is not None
    for cell in [] if is_styled else [table, *table.find_all(["th", "td"])]:
        del cell["id"], cell["class"], cell["border"]
    table["class"] = "dataframe"


def _mark_cells(table):
    """Give every cell the class its text calls for; a verdict gets its mark."""
    for cell in table.select("tbody td"):
        text = cell.get_text(strip=True)
        if text in MARKS:
            cell["data-verdict"] = text
            mark = Tag(name="span", attrs={"class": "mark", "aria-hidden": "true"})
            mark.string = f"{MARKS[text]} "
            cell.insert(0, mark)
        elif text in _ABSENT:
            cell["class"] = [*cell.get("class", []), "absent"]


def _mark_columns(table):
    """Mark the columns of words, which are read from the left; numbers stay on the right."""
    rows = [row.find_all("td") for row in table.select("tbody tr")]
    is_words = [
        any(_NUMBER.fullmatch(_text_of(cell)) is None for cell in column)
        for column in zip(*(row for row in rows if row), strict=False)
    ]
    heads = [row.find_all(["th", "td"]) for row in table.select("thead tr")]
    for row in rows + [head[len(head) - len(is_words) :] for head in heads[-1:] if len(head) >= len(is_words)]:
        for cell, is_word in zip(row, is_words, strict=False):
            if is_word:
                cell["class"] = ["words", *cell.get("class", [])]


def _text_of(cell):
    return cell.get("data-verdict") or cell.get_text(strip=True)


def _mark_headers(table):
    """Say of every header what it heads; an empty one is none."""
    if table.thead is not None and not table.thead.get_text(strip=True):
        table.thead.decompose()
    for header in table.find_all("th"):
        if header.get_text(strip=True):
            header["scope"] = "col" if header.find_parent("thead") else "row"
        else:
            header.name = "td"
