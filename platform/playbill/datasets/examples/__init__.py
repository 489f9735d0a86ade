"""Which events of the log teach what."""
