"""The only place that imports torch, transformers and sae_lens, inside functions, since they take seconds."""
