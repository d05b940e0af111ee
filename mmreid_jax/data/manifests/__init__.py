"""True public file names of the data sets, as compressed tables."""
