"""The version, in its one place: the build reads it here, and so does ``softxent.__version__``."""

__version__ = "0.1.0"
