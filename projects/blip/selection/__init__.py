"""Selections: the texts of a CapFilt run that a training set is to have, chosen by stored scores.

config.py   the keys of a selection          worker.py   takes blocks, pass by pass
rules.py    what a rule may say              runner.py   the runner `select`
pool.py     records of a run as columns      report.py   the page
moments.py  fused scores                     layout.py   the files of a selection
cuts.py     shares of the whole pool         reading.py  a selection as it is read back
repeats.py  duplicates, caps                 exports/    other tools' formats
precision.py  thresholds from labels         command.py  lavis-lite select, export-selection
decide.py   rules applied to a block

Nothing here imports torch or loads a model.
"""
