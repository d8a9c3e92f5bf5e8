"""A recording -> what the model hears: features, emotions, vocals."""
