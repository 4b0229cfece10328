"""Evaluations of models: retrieval, captions, matching and facts, and the figures behind them."""
