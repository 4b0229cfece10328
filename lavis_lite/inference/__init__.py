"""Models on a user's images: the commands caption, match, search and answer."""
