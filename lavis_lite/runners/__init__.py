"""Runners: what a config's `runner` section names. `run` starts any of them."""

from __future__ import annotations

from typing import Any

from lavis_lite import registry


def run(config: Any) -> dict[str, Any]:
    """Run a loaded and bound config; returns the runner's summary."""
    return registry.build("runner", config.runner.spec, config=config).run()
