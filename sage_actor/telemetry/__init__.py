"""Counters, exporters and logs. Reads; is never called by the hot path."""
