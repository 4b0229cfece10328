"""Judging the texts of a run in the browser, and choosing the cut through a score by it.

command.py    `lavis-lite review FOLDER`      judgements.py  labels as numbers of texts
app.py        pages and their data            queue.py       which text comes next
guard.py      who may ask for what            index.py       scores of all texts, records by offset
pictures.py   images of records               cut_config.py  a cut as the config of a selection
"""
