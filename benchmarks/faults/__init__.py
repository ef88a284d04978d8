"""The fault matrix: what breaks at a site, and what must hold all the same, run on the testbed.

A row (`benchmarks.faults.row`) is data and a small function that plays the fault on a `Stage`; rows
are collected by theme. `python -m benchmarks faults` runs them and is red where a promise is broken.
"""
