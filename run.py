"""Run a config: train, evaluate, bootstrap or benchmark.

python run.py --cfg configs/quickstart.yaml
python run.py --cfg configs/blip/pretrain_scenes.yaml model.vision.name=timm/resnet18 --dry-run
torchrun --nproc-per-node 8 run.py --cfg configs/blip/pretrain_14m.yaml
"""

import sys

from lavis_lite.cli import main

if __name__ == "__main__":
    sys.exit(main(program="run.py"))
