"""What vision-language models are composed of: capabilities, each with the parts that it needs.

towers.py       an image tower, a tokenizer, text towers that look; the joint space
reading.py      texts that are read with their image: matching, ranking, hidden words
classifying.py  the class of an image, or of several, with a text
answering.py    answers to questions, written and ranked
features.py     an image and a text as features, apart and together
retrieval.py    the joint space and matching, trained together, with a momentum copy
momentum.py     that copy, and what it is able to do
gradcam.py      where in an image the words of a text are found
released.py     weights in published layouts, whatever the project
"""
