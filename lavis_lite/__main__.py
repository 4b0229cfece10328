"""``python -m lavis_lite`` is ``lavis-lite``, also for ``torchrun -m lavis_lite run --cfg ...``."""

import sys

from lavis_lite.cli import main

if __name__ == "__main__":
    sys.exit(main())
