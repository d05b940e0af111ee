"""Market1501-MM: see README.md and market1501_mm_dataset_builder."""
