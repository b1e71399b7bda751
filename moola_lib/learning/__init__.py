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
    "geometric_mean": "moola_lib.learning.scalarisers:GeometricMean",
    "dwa": "moola_lib.learning.scalarisers:DynamicWeightAverage",
    "famo": "moola_lib.learning.scalarisers:Famo",
    "imtl_l": "moola_lib.learning.scalarisers:ImtlL",
    "stch": "moola_lib.learning.scalarisers:SmoothTchebycheff",
    "pcgrad": "moola_lib.learning.aggregators:PCGrad",
    "mgda": "moola_lib.learning.aggregators:Mgda",
    "aligned_mtl": "moola_lib.learning.aggregators:AlignedMtl",
    "upgrad": "moola_lib.learning.aggregators:UPGrad",
    "gradnorm": "moola_lib.learning.aggregators:GradNorm",
}
