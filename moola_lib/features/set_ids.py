"""Read the id of a feature set back into the options that make it."""

import re

from moola_lib.errors import UserError
from moola_lib.features.sets import describe_set

SET_ID = re.compile(
    r"(?P<feature_set>\w+)\.v\d+(/(?P<zigzag>\w+))?(/k=(?P<k>[0-9.e+-]*[0-9.]))?(?P<extra>(\+[a-z_]+)*)"
)


def options_of(set_id):
    """Return the arguments of `build_features` that make a set.

    Parameters
    ----------
    set_id : str
        As in FeatureTable and in model cards.

    Returns
    -------
    dict

    Raises
    ------
    UserError
        No such set is made from bars, or its version is another now.
    """
    found = SET_ID.fullmatch(set_id)
    if found is not None:
        options = {name: found[name] for name in ("feature_set", "zigzag") if found[name]}
        if found["k"]:
            options["k"] = float(found["k"])
        options["extra"] = tuple(filter(None, found["extra"].split("+")))
        try:
            made = describe_set(**options)["set_id"]
        except UserError as error:
            raise UserError(f"the feature set {set_id} cannot be made from bars ({error})") from error
        if made == set_id:
            return options
        raise UserError(f"the feature set {set_id} is not made here any more, {made} is; train the model again")
    raise UserError(f"{set_id!r} is not the id of a feature set, such as relativity11.v1/primary/k=3")
