"""What everything stands on: params, files, items, a person's mistake, randomness. Imports nothing of ours."""
