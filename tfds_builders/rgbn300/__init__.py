"""RGBN300: see README.md and rgbn300_dataset_builder."""
