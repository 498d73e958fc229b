"""Do sparse-autoencoder features mean the same thing everywhere? Train probes on one dataset, test them on all."""
