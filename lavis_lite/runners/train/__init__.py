"""The runner ``train``.

``runner`` runs a config in its folder; ``build`` makes the ``Training`` of ``training``; ``loop``
trains it, with the ``hooks`` around its steps; ``checkpoints`` saves and restores it.
"""
