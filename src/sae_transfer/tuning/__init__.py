"""Sweeps: the N-sparse probe's C, N, ranking rule and feature scaling, tuned with Optuna for each (SAE, A)."""
