"""Data structures in Cython: the only native code. Imports nothing of the package but `errors`."""
