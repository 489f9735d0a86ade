"""What a model has to beat: one file for each baseline."""
