"""The files of a study and their formats. Readers import no torch, no transformers, no SAELens."""
