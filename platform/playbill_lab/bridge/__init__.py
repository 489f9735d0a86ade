"""Where the product meets the simulator: its logs and features as the product sees them, and models as policies."""
