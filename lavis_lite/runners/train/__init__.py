"""The runner ``train``: the loop, its hooks, the optimizer, and how it runs on many devices."""
