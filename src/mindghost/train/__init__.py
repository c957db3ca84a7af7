"""Training: the run, its loop, the step and what they are made of."""
