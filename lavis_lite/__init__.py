"""lavis_lite: a pluggable vision-language model zoo."""

__version__ = "0.1.0"
