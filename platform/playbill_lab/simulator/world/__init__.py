"""A simulated service before its first day: titles, members, what is true of them, and their law of behaviour."""
