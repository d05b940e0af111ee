"""Distances, ranking metrics, evaluation protocols and re-ranking."""
