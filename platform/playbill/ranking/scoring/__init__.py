"""A registered version scoring titles and rows."""
