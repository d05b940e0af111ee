"""One file per published system; ``config.method`` names the module."""
