"""Whether a better objective or a larger network does more for members."""
