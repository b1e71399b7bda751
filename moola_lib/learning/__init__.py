"""Losses and their balance, the two training loops, checkpoints, prediction.

Naming the strategies imports nothing heavy.
"""

STRATEGIES = {
    "fixed": "moola_lib.learning.balance:Fixed",
    "manual": "moola_lib.learning.balance:Manual",
    "initial": "moola_lib.learning.balance:Initial",
    "ema": "moola_lib.learning.balance:RunningMean",
    "uncertainty": "moola_lib.learning.balance:Uncertainty",
    "uncertainty_bounded": "moola_lib.learning.balance:UncertaintyBounded",
    "log": "moola_lib.learning.balance:Log",
}
