"""How much a model loses while it waits, and what keeping it fresh costs."""
