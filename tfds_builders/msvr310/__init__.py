"""MSVR310: see README.md and msvr310_dataset_builder."""
