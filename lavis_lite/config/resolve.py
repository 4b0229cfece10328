"""Interpolation in configs: ``${key.path}`` and ``${stage:NAME}``, and nothing else.

OmegaConf would also read the environment, and calls whatever resolver the process has registered.
A stranger's config must not reach either, so anything beyond these two forms is refused.
"""

from __future__ import annotations

import re
from typing import Any

from lavis_lite.config.files import Source, texts
from lavis_lite.errors import ConfigError, suggest

# What a sweep's arms say is laid onto another config, and resolved there.
_LATER = "arms"
_ALLOWED = re.compile(r"\$\{(?:stage:([\w-]+)|[\w.\[\]-]+)\}")


def resolve(source: Source) -> Source:
    """Return the source with every interpolation replaced by its value.

    Raises:
        ConfigError: naming file and key path, for a form that is not allowed or a key that is not
            there.
    """
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    here = {key: value for key, value in source.tree.items() if key != _LATER}
    problems = [
        source.locate(path, problem)
        for path, text in texts(here)
        if (problem := _problem(text, here.get("stages")))
    ]
    if problems:
        raise ConfigError("\n".join(problems))
    if not OmegaConf.has_resolver("stage"):
        OmegaConf.register_resolver("stage", _stage_folder, annotation_validation="off")
    try:
        tree = OmegaConf.to_container(OmegaConf.create(here), resolve=True)
    except (OmegaConfBaseException, RecursionError, ValueError) as error:
        where = getattr(error, "full_key", None)
        reason = str(error).strip().splitlines()[0]
        raise ConfigError(f"{source.name}: {f'{where}: ' if where else ''}{reason}") from None
    if _LATER in source.tree:
        tree[_LATER] = source.tree[_LATER]  # type: ignore[index,call-overload]
    return source._replace(tree=tree)  # type: ignore[arg-type]


def _problem(text: str, stages: object) -> str | None:
    if "${" in _ALLOWED.sub("", text):
        return (
            f"{text!r} is not resolved: configs know ${{key.path}} and ${{stage:NAME}}; "
            "pass any other value on the command line as key=value"
        )
    known = list(stages) if isinstance(stages, dict) else []
    for stage in filter(None, _ALLOWED.findall(text)):
        if stage not in known:
            return (
                f"no stage {stage!r}.{suggest(stage, known)} Stages: {', '.join(known) or 'none'}"
            )
    return None


def _stage_folder(name: str, *, _root_: Any) -> str:
    return f"{_root_.run.output_dir}/{name}"
