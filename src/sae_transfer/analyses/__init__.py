"""One file an analysis: its table, what it computes of a study, and what the report says of it."""
