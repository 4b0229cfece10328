"""Layers and what is done to them: linear layers, prepacking, compiling, recomputation, EMA."""
