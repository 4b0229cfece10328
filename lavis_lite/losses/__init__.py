"""Training losses: each a registered module over one step's Shared view."""
