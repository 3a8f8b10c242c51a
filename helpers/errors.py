"""Errors that a user can act on: each names the file, row or parameter, and the way out."""

import os


class InputError(ValueError):
    """Bad input. The command line prints its message alone and exits with status 2.

    The home folder, whose name is often a person's, is written as ~: messages end up in notebooks that are published.
    """

    def __init__(self, message: object = ""):
        home = os.path.expanduser("~/")
        super().__init__(str(message).replace(home, "~/") if len(home) > 2 else message)


class OfflineError(InputError, ConnectionError):
    """Something must be downloaded and the network is not there. The message names the file that would serve instead."""
