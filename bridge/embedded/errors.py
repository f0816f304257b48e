"""What can go wrong when the embedded servers start."""


class EmbeddedError(Exception):
    """The embedded servers cannot start. Its text is one line that a person can act on."""
