"""SYSU-MM01: see README.md and sysu_mm01_dataset_builder."""
