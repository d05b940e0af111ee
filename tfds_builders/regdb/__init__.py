"""RegDB: see README.md and regdb_dataset_builder."""
