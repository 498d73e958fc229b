"""Statistics: arrays in, numbers out. No paths, no params, no randomness of its own."""
