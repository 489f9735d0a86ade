"""Reports as tables, pages and pictures."""
