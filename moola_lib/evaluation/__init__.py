"""Metrics beside their baselines and intervals, cross-validation, reconstruction skill, gates."""
