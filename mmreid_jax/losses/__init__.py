"""Pure loss functions: arrays in, scalar out."""
