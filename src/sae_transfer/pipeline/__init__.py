"""What dvc.yaml runs: a stage is a verb, `python -m sae_transfer.pipeline VERB`; it makes items in its own folder."""
