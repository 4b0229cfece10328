"""The benchmark workloads of the core; projects have workloads of their own.

reading.py      image_folder, shard_reading   data loading, beside torchvision and webdataset
starting.py     command                       a command from start to end
weights.py      load_weights                  a model from its file, beside reading the file
photographs.py  files to read
"""
