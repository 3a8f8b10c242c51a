"""Errors that a user can act on: each names the file, row or parameter, and the way out."""


class InputError(ValueError):
    """Bad input. The command line prints its message alone and exits with status 2."""


class OfflineError(InputError, ConnectionError):
    """Something must be downloaded and the network is not there. The message names the file that would serve instead."""
