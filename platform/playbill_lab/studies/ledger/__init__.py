"""One model of every canvas beside the separate models that it replaces."""
