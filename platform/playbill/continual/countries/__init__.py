"""Weights of a country beside those of a version, where they are ahead."""
