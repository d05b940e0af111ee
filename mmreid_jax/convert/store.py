"""Converted weights on disk."""
