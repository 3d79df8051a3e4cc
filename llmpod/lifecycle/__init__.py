"""Not asynchronous, not a daemon: what should exist, and making it so, one short pass at a time."""
