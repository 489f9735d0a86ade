"""A champion trained on with the events that came since, each once."""
