"""Who fills the pages of a simulated service, with exact propensities."""
