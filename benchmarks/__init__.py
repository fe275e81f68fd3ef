"""Benchmarks: one question a file. ``python -m benchmarks`` prints the table, ``python -m benchmarks NAME --json`` one case.

Every case measures a hand-written floor, a peer where there is one, and ours in one interleaved run (A B C A B C ...),
and judges the median of the paired ratios. Only public names of `sage_actor` are used.
"""
