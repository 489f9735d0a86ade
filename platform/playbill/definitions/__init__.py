"""What teams write in YAML: specifications of every kind, and files read, checked and resolved."""
