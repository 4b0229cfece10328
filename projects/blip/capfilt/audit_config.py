"""Every key of an audit; imports no torch."""

from __future__ import annotations

from dataclasses import dataclass

from lavis_lite.config.schema import key
from lavis_lite.registry.component import Component


@dataclass(frozen=True)
class AuditData:
    """The data of an audit: the texts that are judged, and the field with the truth."""

    source: Component = key(
        "Rows with `text_input`, `origin` and `kept`, of a dataset that can read facts: "
        "`bootstrapped` with `texts: all`, over such a dataset.",
        kind="dataset",
    )
    truth: str = key("The field with a true text of the image.")


@dataclass(frozen=True)
class AuditRunConfig:
    """The output folder of an audit."""

    output_dir: str = key("Folder of everything the run writes.")


@dataclass(frozen=True)
class AuditConfig:
    """Judging the texts of a bootstrapped dataset (`runner: {name: audit}`)."""

    runner: Component = key("The runner.", kind="runner")
    data: AuditData = key("What is judged.")
    run: AuditRunConfig = key("Output folder.")
    plugins: list[str] = key("Files or modules of your own to import first.", [])
