"""Members folded into one network, and a gate that learns whom to trust where."""
