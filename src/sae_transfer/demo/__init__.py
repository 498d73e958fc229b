"""The embedded default: a micro-world, the language model that learnt it, and the SAEs of that model."""
