"""The one error that the command itself raises; packages raise their own."""


class CommandError(ValueError):
    """A user's input that the command can't work with. The text is the whole message."""
