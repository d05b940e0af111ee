"""Networks only: they know no loss, no data set and no config."""
