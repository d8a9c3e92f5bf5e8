"""A picture and its face -> what the model sees."""
