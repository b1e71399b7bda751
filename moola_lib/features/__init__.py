"""Causal features: row t of a table uses bars up to t only, and no absolute price."""

from moola_lib.features.sets import FEATURE_SETS, WARM_UP_BARS
from moola_lib.features.stream import FeatureStream
from moola_lib.features.table import FeatureTable, build_features

__all__ = ["FEATURE_SETS", "WARM_UP_BARS", "FeatureStream", "FeatureTable", "build_features"]
