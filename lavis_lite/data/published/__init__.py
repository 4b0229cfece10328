"""Published datasets with their cards: each knows the files that its authors released."""
