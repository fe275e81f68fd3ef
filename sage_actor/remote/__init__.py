"""Actors on other workers: refs that work from everywhere, over any backend. Found by name when a system is given ``backend=``."""
