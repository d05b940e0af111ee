"""TFDS builders of the multi-modal re-identification data sets."""
