"""A/B tests in a simulated service."""
