"""The error that is raised for bad input."""


class InputError(Exception):
    """A file or flag that cannot be used. Entry points print it without a traceback and exit with status 2.

    Args:
        where: the file (and line) or flag that is wrong.
        found: what is there.
        expected: what should be there.
        way_out: what the user can do.
    """

    def __init__(self, where: object, found: str, expected: str, way_out: str):
        self.where, self.found, self.expected, self.way_out = str(where), found, expected, way_out
        super().__init__(f"{where}: found {found}; expected {expected}. {way_out}")
