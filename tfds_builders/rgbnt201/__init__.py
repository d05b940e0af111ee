"""RGBNT201: see README.md and rgbnt201_dataset_builder."""
