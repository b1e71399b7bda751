"""Sweeps: one notebook over grids of parameters and seeds, its runs spread over processes and machines."""
