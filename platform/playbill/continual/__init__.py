"""How a model keeps up with change: where it fails and why, what it goes on to learn, and what countries add to it."""
