"""The adaptations that can be chosen, one a file; see `training.adapt`."""
