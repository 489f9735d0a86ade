"""A streaming service in numpy whose truth is known, writing the canonical tables."""
