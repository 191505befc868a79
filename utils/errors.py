"""The error that is raised for bad input."""


class InputError(Exception):
    """The error for an unusable file or flag; entry points print it without a traceback and exit with status 2.

    `where` is the file (and line) or flag; `found` and `expected` are noun phrases, and `way_out` is a sentence.
    """

    def __init__(self, where: object, found: str, expected: str, way_out: str):
        self.where, self.found, self.expected, self.way_out = str(where), found, expected, way_out
        super().__init__(f"{where}: found {found}; expected {expected}. {way_out}")
