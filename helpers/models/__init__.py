"""The captioners, one idea a file. Knows nothing of datasets or files."""
