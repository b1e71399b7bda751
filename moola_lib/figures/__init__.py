"""Figures: a frame or arrays in, a plotly figure out. Nothing is computed here."""
