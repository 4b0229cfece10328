"""``lavis-lite push``: a model's folder, or a run's, published on the hub."""

from __future__ import annotations

import tempfile
from pathlib import Path

from lavis_lite.errors import ConfigError
from lavis_lite.io import hub_models
from lavis_lite.io.paths import here


def push(
    folder: str,
    repository: str,
    *,
    private: bool | None = None,
    revision: str | None = None,
    message: str | None = None,
) -> str:
    """Publish a model and return what was done, for people.

    Args:
        folder: of ``save_pretrained``, as it is; or the output folder of a run, whose model is
            written as such a folder first.
        repository: ``owner/name``.
        private: make it private, if it is made.
        revision: a branch.
        message: of the commit.

    Raises:
        ConfigError: no model in the folder, or not a repository's name.
        CheckpointError: a damaged description or weights.
        DownloadError: the hub cannot be reached, or refuses.
    """
    hub_models.check_repository(repository)
    path = Path(here(folder))
    how = {"private": private, "revision": revision, "message": message}
    if (path / hub_models.CONFIG).is_file():
        return _told(hub_models.push_folder(path, repository, **how), repository)  # type: ignore[arg-type]
    from lavis_lite.models import folder as model_folder
    from lavis_lite.models.zoo import create_model

    if not path.is_dir() or model_folder.read(path) is None:
        raise ConfigError(f"{folder}: neither a folder of save_pretrained nor of a run")
    model = create_model(checkpoint=str(path))
    with tempfile.TemporaryDirectory() as temporary:
        model_folder.save(model, temporary)
        return _told(hub_models.push_folder(temporary, repository, **how), repository)  # type: ignore[arg-type]


def _told(commit: str, repository: str) -> str:
    return f"published {commit}\nload it with load_model(checkpoint={repository!r})"
