"""What a model's card says of the bars behind it, and whether other bars are of a kind the model understands."""

import numpy as np
import pandas as pd

from moola_lib.errors import UserError
from moola_lib.market.bars import PRICES, Bars

NS_PER_MINUTE = 60_000_000_000


def describe_bars(bars):
    """Return what a card says of the bars that a model was trained on.

    Parameters
    ----------
    bars : Bars

    Returns
    -------
    dict
        `fingerprint`, `symbol`, `n_bars`, `first_bar`, `last_bar` (ISO 8601, UTC), `bar_minutes`.
    """
    index = bars.frame.index
    return {
        "fingerprint": bars.fingerprint,
        "symbol": bars.symbol,
        "n_bars": len(bars),
        "first_bar": index[0].isoformat(),
        "last_bar": index[-1].isoformat(),
        "bar_minutes": find_bar_minutes(index),
    }


def find_bar_minutes(index):
    """Return the length of bars in minutes, their commonest step; None for fewer than two bars.

    Parameters
    ----------
    index : DatetimeIndex

    Returns
    -------
    float or None
    """
    steps = np.diff(index.as_unit("ns").asi8)
    if len(steps) == 0:
        return None
    lengths, counts = np.unique(steps, return_counts=True)
    return float(lengths[counts.argmax()] / NS_PER_MINUTE)


def check_understands(card, *, bars=None, table=None):
    """Refuse bars or features that a model was not made for.

    Parameters
    ----------
    card : dict
        Of `load_model`. A card that says nothing of its bars is one of one-minute bars.
    bars : Bars or DataFrame, optional
        Their length and columns are compared.
    table : FeatureTable, optional
        Its set and columns are compared.

    Raises
    ------
    UserError
        One sentence that names both sides.
    """
    if bars is not None:
        _check_bars(card, bars.frame if isinstance(bars, Bars) else bars)
    if table is not None:
        _check_table(card, table)


def _check_bars(card, frame):
    """Refuse bars of another length, or without prices or stamps."""
    wanted = ((card.get("notes") or {}).get("bars") or {}).get("bar_minutes") or 1.0
    reads = f"{_name(card)} reads {wanted:g}-minute bars with {', '.join(PRICES)}"
    missing = [name for name in PRICES if name not in frame.columns]
    if missing:
        has = ", ".join(map(str, frame.columns)) or "nothing"
        raise UserError(f"{reads}; these bars lack {', '.join(missing)} (they have {has})")
    if not isinstance(frame.index, pd.DatetimeIndex):
        raise UserError(f"{reads}; these bars have no stamps (read them with moola_lib.market.load_bars)")
    found = find_bar_minutes(frame.index)
    if found is not None and found != wanted:
        raise UserError(f"{reads}; these are {found:g}-minute bars: give {wanted:g}-minute ones")


def _check_table(card, table):
    """Refuse features of another set, or with other columns."""
    wanted = card["features"]
    names = [*table.names, *(["position"] if table.has_position else [])]
    if wanted["set_id"] == table.set_id and list(wanted["names"]) == names:
        return
    lacking = [name for name in wanted["names"] if name not in names]
    lacks = f", without {', '.join(lacking)}" if lacking else ""
    raise UserError(
        f"{_name(card)} reads the feature set {wanted['set_id']} ({len(wanted['names'])} columns); these features are "
        f"{table.set_id} ({len(names)} columns{lacks}): build the model's set from the bars"
    )


def _name(card):
    """Return how a sentence calls the model."""
    name = (card.get("notes") or {}).get("name")
    return f"the model {name}" if name else f"the {card['model']['name']}"
