"""Loaders: each turns one file into typed rows; `registry` lists them and finds a dataset's files."""
