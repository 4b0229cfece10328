"""Tasks in one line."""
