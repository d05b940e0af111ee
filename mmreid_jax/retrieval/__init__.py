"""Distances, ranking metrics, evaluation protocols and re-ranking."""

from mmreid_jax.retrieval import (
    distances,
    feature_files,
    features,
    galleries,
    matches,
    metrics,
    protocols,
    ranking,
    rerank,
    streamed,
)

__all__ = [
    "distances",
    "feature_files",
    "features",
    "galleries",
    "matches",
    "metrics",
    "protocols",
    "ranking",
    "rerank",
    "streamed",
]
