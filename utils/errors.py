"""The error that is raised for bad input."""


class InputError(Exception):
    """A file or flag that cannot be used. Entry points print the message without a traceback and exit with status 2."""

    def __init__(
        self,
        where: object,  # the file (and line) or flag
        found: str,  # what is there
        expected: str,  # what should be there
        way_out: str,  # what the user can do, as a sentence
    ):
        self.where, self.found, self.expected, self.way_out = str(where), found, expected, way_out
        super().__init__(f"{where}: found {found}; expected {expected}. {way_out}")
