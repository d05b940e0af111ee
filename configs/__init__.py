"""One file per experiment; ``common.py`` holds every key with its meaning."""
