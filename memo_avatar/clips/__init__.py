"""A video clip by clip: conditions, steps, and the one value that goes from clip to clip."""
