"""Moola: find expansions in one-minute futures bars, and never be fooled by the score.

The package is a house of floors; a room imports only rooms below it::

    runs          parameters, the papermill engine, run records, HTML reports
    widgets       interactive views for JupyterLab
    figures       frame in, plotly figure out
    evaluation    metrics, baselines, intervals, gates, cross-validation
    learning      losses, balancing, the two training loops, checkpoints
    models        encoder, heads, the five models, weights
    windows       gathering, masks, splits, folds, samplers
    features labels
    market        bars, segments, true range, the simulator
    errors files

Importing the package imports none of the rooms.
"""

__version__ = "0.1.0"
