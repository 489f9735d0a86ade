"""Where a model does worse than its size there lets one expect, and why."""
