"""Tiny variants, dummy batches, golden loader and tolerances."""
