"""Configs as files: the shape that is written down, without secrets."""

from __future__ import annotations

import dataclasses
from typing import Any

from lavis_lite.io.redaction import redacted
from lavis_lite.registry.component import Component


def to_dict(config: object) -> Any:
    """Return a config dataclass as plain dicts and lists, shaped as a file, without secrets.

    The result is for writing down; parts are built from the dataclass.
    """
    return redacted(_plain(config))


def _plain(config: object) -> Any:
    if isinstance(config, Component):
        settings = {key: _plain(getattr(config, key)) for key in config.config_keys()}
        return {"name": config.name, **settings, **_plain(dict(config.written))}
    if dataclasses.is_dataclass(config):
        return {f.name: _plain(getattr(config, f.name)) for f in dataclasses.fields(config)}
    if isinstance(config, dict):
        return {k: _plain(v) for k, v in config.items()}
    if isinstance(config, list | tuple):
        return [_plain(v) for v in config]
    return config


def to_yaml(config: object) -> str:
    """Return a config dataclass as YAML that ``load`` reads back, without secrets."""
    from omegaconf import OmegaConf

    return OmegaConf.to_yaml(OmegaConf.create(to_dict(config)))
