"""Runners: what a config's `runner` section names. `run` starts any of them."""

from __future__ import annotations

import logging
from typing import Any

from lavis_lite import registry

log = logging.getLogger(__name__)


def run(config: Any) -> dict[str, Any]:
    """Run a loaded and bound config; returns the runner's summary.

    Raises:
        SystemExit: another process of the run failed (code 1), or a signal ended it (143, 130).
    """
    try:
        return registry.build("runner", config.runner.spec, config=config).run()
    except RuntimeError as error:
        from lavis_lite import distributed  # it imports torch, which not every runner needs

        if not isinstance(error, distributed.ProcessLost):
            raise
        # The process that failed prints its own traceback; a line is enough for the others.
        log.error("%s", error)
        raise SystemExit(1) from None
