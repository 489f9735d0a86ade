"""Studies over logs and simulated services that a command or a benchmark makes."""
