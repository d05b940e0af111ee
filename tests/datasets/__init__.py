"""Tests of the TFDS builders and of the prepare command."""
