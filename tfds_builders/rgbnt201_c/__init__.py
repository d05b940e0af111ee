"""RGBNT201-C: see README.md and rgbnt201_c_dataset_builder."""
