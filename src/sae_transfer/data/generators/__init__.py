"""The datasets that come from generators."""
