"""CapFilt: captions for noisy image-text pairs, and a filter for both kinds of text.

config.py     the keys of a run               worker.py     loads the models, takes shards
runner.py     the runner `capfilt`            shard.py      one shard from rows to published files
executors.py  one process, many, a cluster    records.py    what is said about a sample
job.py        what may not change             tars.py       the images of a shard
claims.py     who works on a shard            stats.py      counts that add up
layout.py     names of the output's files     report.py     the page
captioner.py  filter.py  source.py            bootstrapped.py  the output as a dataset
table.py      records as a parquet table      tabulate.py   tables of a whole run
endpoint.py   chat.py    captions by a server describing.py    from images to records
scorers/      scores by name                  scoring.py       all scores of a shard
score_pass.py  score_runner.py  scores added  texts.py         records with all scores

Reference: BLIP, https://arxiv.org/abs/2201.12086, section 3.3. Its code was never released.
"""
