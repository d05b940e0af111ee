"""Scores of a model on the test tables: of retrieval, or of the task that a method sets itself."""
