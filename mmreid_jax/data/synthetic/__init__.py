"""Drawn people and vehicles with visible, near-infrared and thermal physics."""
