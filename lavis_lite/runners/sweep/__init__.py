"""The runner ``sweep``: arms times seeds of one config, side by side, with a page."""
