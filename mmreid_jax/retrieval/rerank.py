"""k-reciprocal re-ranking, in blocks."""
