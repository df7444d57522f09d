"""What can go wrong while images are built."""


class BuildError(Exception):
    """A build can't go on.

    Args:
        message: what failed.
        remedy: what the reader can do about it.
    """

    def __init__(self, message: str, *, remedy: str) -> None:
        super().__init__(message)
        self.remedy = remedy
