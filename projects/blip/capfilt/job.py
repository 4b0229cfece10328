"""A run's folder, and the settings that must not change before the last shard is done."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

import lavis_lite
from lavis_lite import registry
from lavis_lite.config import to_dict
from lavis_lite.data.counts import Counts
from lavis_lite.errors import ConfigError
from lavis_lite.io.redaction import redacted
from lavis_lite.modules.interfaces import RowDataset
from lavis_lite.projects.blip.capfilt import names
from lavis_lite.projects.blip.capfilt.claims import locked
from lavis_lite.projects.blip.capfilt.config import CapfiltConfig, Scorer
from lavis_lite.projects.blip.capfilt.layout import DONE, IMAGES, JOB, RECORDS, SHARDS, shard_name
from lavis_lite.registry.component import ModelComponent
from lavis_lite.runners.data_identity import rows_hash
from lavis_lite.runners.run_folder import output_folder, read_json, write_json
from lavis_lite.runners.settings import (
    Settings,
    differences,
    flatten,
    named_in,
    without_effect,
)

QUARANTINE = ".quarantine"  # not .jsonl: who reads shards/*.jsonl wants records
EARLIER_QUARANTINE = ".quarantine.jsonl"
STATS = ".stats.json"
# The records are the same whatever these are; weights are told by their hash, not by their path.
_NOT_IN_RECORDS = ("filter.checkpoint", "run.report")


class Folder:
    """The output folder: a few files for each shard, and those about all of them."""

    def __init__(self, path: str | Path) -> None:
        self.path = output_folder(path)
        self.job = self.path / JOB
        self.shards = self.path / SHARDS
        self.timings = self.path / "timings.jsonl"
        self.stats = self.path / "stats.json"
        self.quarantine = self.path / "quarantine.jsonl"

    def file(self, shard: int, suffix: str) -> Path:
        """``shards/shard-000007.jsonl`` for 7 and RECORDS."""
        return self.shards / f"{shard_name(shard)}{suffix}"

    def quarantined(self, shard: int) -> Path:
        """Return the file of a shard's quarantine, also under the name it had earlier."""
        file, earlier = self.file(shard, QUARANTINE), self.file(shard, EARLIER_QUARANTINE)
        return earlier if earlier.is_file() and not file.is_file() else file

    def done(self, shard: int, fingerprint: str) -> dict[str, Any] | None:
        """Return the record of a finished shard; None if it is not finished, or its files are cut.

        A crash can cut a file of a disk that lies about syncing: sizes are compared as well.
        """
        note = read_json(self.file(shard, DONE))
        if note.get("fingerprint") != fingerprint:
            return None
        for name, expected in note["files"].items():
            path = self.shards / name
            if not path.is_file() or path.stat().st_size != expected["size"]:
                return None
        return note

    def clean(self, shard: int) -> None:
        """Remove what a killed worker left of a shard. Only who holds the shard may call this."""
        for left in self.shards.glob(f"{shard_name(shard)}.*.tmp"):
            left.unlink(missing_ok=True)

    def clean_all(self) -> None:
        """Remove what workers left that were killed just after a shard; all shards are done.

        One that is still at its last shard removes the same files.
        """
        for pattern in ("*.tmp", "*.lock"):
            for left in self.shards.glob(pattern):
                left.unlink(missing_ok=True)


class Job(NamedTuple):
    """A run whose fingerprint has been compared with what the folder holds."""

    folder: Folder
    fingerprint: str
    num_rows: int
    shard_size: int

    @property
    def num_shards(self) -> int:
        """Shards of ``shard_size`` rows, the last one shorter."""
        return -(-self.num_rows // self.shard_size)

    def rows(self, shard: int) -> range:
        """The rows of a shard."""
        start = shard * self.shard_size
        return range(start, min(start + self.shard_size, self.num_rows))

    def done(self, shard: int) -> dict[str, Any] | None:
        """Return the record of a finished shard, see ``Folder.done``."""
        return self.folder.done(shard, self.fingerprint)


def config_settings(config: CapfiltConfig, shard_size: int) -> Settings:
    """Every setting that decides what is written, by dotted key, with presets written out."""
    tree = to_dict(config)
    if config.filter is not None:
        tree["filter"] |= redacted(config.filter.args)
    if config.captioner is not None:
        tree["captioner"] = _captioner_settings(config)
    tree["scorers"] = scorer_settings(config.scorers)
    if not config.scorers:
        del tree["scorers"]
    if config.data.vision_tokens is None:  # as releases wrote it that kept no tokens
        del tree["data"]["vision_tokens"]
    tree["runner"]["shard_size"] = shard_size
    ignored = (*without_effect(config), *_NOT_IN_RECORDS)
    flat = {key: value for key, value in flatten(tree) if not named_in(key, ignored)}
    flat["threads of a worker"] = config.run.num_threads  # sums depend on it
    return json.loads(json.dumps(flat, default=str))


def _captioner_settings(config: CapfiltConfig) -> Settings:
    """The settings of the captioner, or of each of several by its name."""
    named = {name: _model_settings(one) for name, one in names.captioners(config).items()}
    if isinstance(config.captioner, list):
        for own in named.values():
            del own["called"]  # it is the name
        return named
    (own,) = named.values()
    if own["called"] is None:  # as releases wrote it that knew no names
        del own["called"]
    return own


def scorer_settings(listed: Sequence[Scorer]) -> Settings:
    """The settings of scorers by the name of their scores, whatever their order."""
    found = {}
    for name, one in names.scorers(listed).items():
        own = to_dict(one)
        del own["called"]
        if one.model is not None:
            own["model"] = _model_settings(one.model)
        found[name] = own
    return found


def _model_settings(model: ModelComponent) -> Settings:
    """The settings of a model, its type's written out, that decide what it gives."""
    built = registry.entry("model", model.name).result
    # Weights are told by their hash, not by their path; a server's address is where it is now.
    without = ("checkpoint", *getattr(built, "without_effect", ()))
    whole = {**to_dict(model), **redacted(model.args)}
    return {key: value for key, value in whole.items() if key not in without}


def facts(
    models: dict[str, nn.Module], source: RowDataset | None, device: torch.device
) -> Settings:
    """Return what decides the output besides the config: weights, input rows, machine, versions."""
    settings: Settings = {f"weights of the {n}": weights_hash(m) for n, m in models.items()}
    if source is not None:
        settings["rows of data.source"] = len(source)
        settings["some rows of data.source"] = rows_hash(source)
    if source is not None and hasattr(source, "files"):
        settings["files of data.source"] = files_hash(source.files)
    settings["device"] = device_name(device)
    settings["lavis_lite"] = lavis_lite.__version__
    settings["torch"] = torch.__version__
    return settings


def weights_hash(model: nn.Module) -> str:
    """A hash of names, shapes and bytes of all weights."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        flat = tensor.detach().cpu().contiguous().reshape(-1)
        digest.update(flat.view(torch.uint8).numpy())
    return digest.hexdigest()[:16]


def files_hash(files: Iterable[Path]) -> str:
    """A hash of names and sizes: a shard that was made anew shows, one that was moved does not."""
    digest = hashlib.sha256()
    for file in files:
        digest.update(f"{file.name} {file.stat().st_size}\n".encode())
    return digest.hexdigest()[:16]


def device_name(device: torch.device) -> str:
    """Name the processor, as far as it decides the rounding of sums."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    if device.type == "cpu":
        return f"cpu {torch.backends.cpu.get_cpu_capability()}"
    return device.type


def refuse_changed(
    folder: Folder,
    settings: Settings,
    *,
    only_config: bool = False,
    ignored: Collection[str] | None = None,
) -> None:
    """Compare with what the folder was begun with.

    Args:
        folder: of the run.
        settings: of the config, and the facts unless they are not known yet.
        only_config: compare the given keys alone.
        ignored: keys that do not count; those of a CapFilt run by default.

    Raises:
        ConfigError: what differs.
    """
    before = read_json(folder.job).get("settings")
    if before is None:
        return
    known = set(settings)
    if only_config:
        before = {k: v for k, v in before.items() if not k.startswith(_FACTS)}
        known |= set(before)
    now = {k: v for k, v in settings.items() if k in known}
    lines = differences(before, now, ignored=ignored or without_effect(CapfiltConfig))
    if lines:
        listed = "\n".join(f"  {line}" for line in lines)
        raise ConfigError(
            f"run.output_dir: {folder.path} holds a run that was begun with other settings or "
            f"another input:\n{listed}\n"
            "Go back to them, delete the folder, or choose another run.output_dir"
        )


_FACTS = (
    *("device", "lavis_lite", "torch", "weights of", "rows of", "some rows of", "files of"),
    "records of",
)


def open_job(config: CapfiltConfig, settings: Settings, source: RowDataset, shard_size: int) -> Job:
    """The job in the config's folder, begun by this call or, by equal settings, before.

    Args:
        config: of the run.
        settings: all that the output depends on.
        source: the dataset.
        shard_size: rows per shard.

    Raises:
        ConfigError: it was begun with something else.
    """
    about = {
        "source": to_dict(config.data.source),
        # Files that are missing or cut, as the dataset found them.
        "problems": list(getattr(source, "problems", [])),
        "source_counts": Counts.of(source).as_dict(),
    }
    if names.is_plural(config):
        about["text_scores"] = names.score_names(config.scorers, "text")
        about["image_scores"] = names.score_names(config.scorers, "image")
    return begin_job(config.run.output_dir, settings, (len(source), shard_size), about)


def begin_job(
    path: str,
    settings: Settings,
    size: tuple[int, int],
    about: dict[str, Any],
    ignored: Collection[str] | None = None,
) -> Job:
    """The job in a folder, begun by this call or, by equal settings, before.

    Args:
        path: of the folder.
        settings: all that the output depends on.
        size: rows, and rows per shard.
        about: what else is written down about the job: ``source`` ...
        ignored: see `refuse_changed`.

    Raises:
        ConfigError: it was begun with something else.
    """
    folder = Folder(path)
    folder.shards.mkdir(parents=True, exist_ok=True)
    text = json.dumps(settings, sort_keys=True)
    fingerprint = hashlib.sha256(text.encode()).hexdigest()[:16]
    job = Job(folder, fingerprint, *size)
    with _alone(folder):
        refuse_changed(folder, settings, ignored=ignored)
        if not folder.job.exists():
            begun = {
                "fingerprint": fingerprint,
                "source": about.pop("source"),
                "num_rows": job.num_rows,
                "num_shards": job.num_shards,
                "shard_size": job.shard_size,
            }
            write_json(folder.job, {**begun, **about, "settings": settings})
    return job


@contextlib.contextmanager
def _alone(folder: Folder) -> Iterator[None]:
    with locked(folder.path / ".job.lock", wait=True):
        yield


__all__ = ["DONE", "IMAGES", "QUARANTINE", "RECORDS", "STATS", "Folder", "Job", "open_job"]
