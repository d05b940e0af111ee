"""Ranked lists, attention maps, curves and the HTML report."""
