"""The config of each system with the meaning of its keys; an experiment changes what differs."""
