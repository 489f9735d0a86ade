"""A whole model measured canvas by canvas: what it is asked there, and by whose requests."""
