"""Datasets: loaders, generators, prompt templates, splits, fetching."""
