"""Files and databases of your own."""
