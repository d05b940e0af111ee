"""Records, catalogue, samplers, transforms and the input pipeline."""
