"""LLCM: see README.md and llcm_dataset_builder."""
