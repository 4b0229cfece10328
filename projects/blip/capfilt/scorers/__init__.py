"""The scorers that come with CapFilt; each is a registered `scorer`.

by_model.py         matching and cosine by a model    similarity.py       with captions of the image
contrast.py         cosine against other pairs        text_statistics.py  counts of words
files.py            hashes and sizes of image files
"""
