"""Held-out requests with the titles that could be shown in them, and slices of them."""
