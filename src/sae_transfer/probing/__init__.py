"""Probes: the rows that they read, how each kind is trained, saved and scored."""
