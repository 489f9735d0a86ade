"""The foundation model's room: what other models take from it."""
