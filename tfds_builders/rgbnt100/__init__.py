"""RGBNT100: see README.md and rgbnt100_dataset_builder."""
