"""Models as programs that run without this package's model code: ONNX files, or torch.export's.

parts.py        the parts of a model that can be exported, by what it can do
write.py        export_model: a folder with a program per part
onnx_files.py   ONNX files: written, run, their weights in 8 bits
description.py  export.json: what the folder holds
pictures.py     pictures to arrays, as the model's image processor makes them
captioner.py    OnnxCaptioner: captions from such a folder

The last three import no torch.
"""
