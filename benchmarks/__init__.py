"""Benchmarks: each measures our code beside a reference, in the same minutes, on the same machine.

`python -m benchmarks [GROUP...] [--json FILE]` prints name, ratio, goal and verdict.
A goal is a ratio of two timings, never seconds, so that it means the same on any machine.
"""
