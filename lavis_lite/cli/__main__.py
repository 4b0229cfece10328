"""``python -m lavis_lite.cli``."""

import sys

from lavis_lite.cli.program import main

sys.exit(main())
