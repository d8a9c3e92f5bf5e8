"""The emotion classes by name, in the order of emotion2vec_plus_large, whose labels MEMO was trained with."""

EMOTIONS = ("angry", "disgusted", "fearful", "happy", "neutral", "other", "sad", "surprised", "unknown")


class EmotionError(ValueError):
    """A name or number that is no emotion class. The text is the whole message."""


def parse_emotion(text: str) -> int:
    """A class's name or number -> its number."""
    name = text.strip().lower()
    if name in EMOTIONS:
        return EMOTIONS.index(name)
    if name.isdecimal() and int(name) < len(EMOTIONS):
        return int(name)
    choices = ", ".join(f"{number} {emotion}" for number, emotion in enumerate(EMOTIONS))
    raise EmotionError(f"expected an emotion but got {text} (emotion). Use a name or number of: {choices}.")
