"""Reproducible randomness: every generator is derived from the study's seed and the name of what it draws."""

import hashlib

import numpy as np


def stable_hash(*parts: object) -> int:
    """A 64-bit hash of the parts' text that is the same on every machine and in every run."""
    text = "\x1f".join(str(part) for part in parts)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")


def rng_for(seed: int, *names: object) -> np.random.Generator:
    """A random generator for what `names` say, derived from the study's seed. Other names give another generator."""
    return np.random.default_rng(stable_hash(seed, *names))
