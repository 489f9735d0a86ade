"""The lab: a simulated service whose truth is known, and studies of models, rewards and pages in it."""
