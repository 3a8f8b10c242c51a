"""The small library that the notebooks, the command line and the tests share."""
