"""BLIP-2: frozen vision towers and language models joined by a Q-Former (arXiv 2301.12597).

towers.py             the vision tower and the norm between it and the Q-Former
"""
