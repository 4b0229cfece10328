"""``lavis-lite export``: the parts of a model as ONNX files, or as programs of torch.export."""

from __future__ import annotations

from pathlib import Path


def export(
    name: str,
    folder: str | Path,
    *,
    format: str = "onnx",
    type: str | None = None,
    checkpoint: str | None = None,
    int8: bool = False,
) -> str:
    """Load a model and write its parts into a folder, see ``lavis_lite.models.export.write``.

    Args:
        name: of the model, ``blip_caption`` or with its type ``blip_caption.scenes``.
        folder: must not exist.
        format: ``onnx`` or ``torch``.
        type: of the model.
        checkpoint: a folder of ``save_pretrained`` or of a run, or weights of the model.
        int8: put the weights of matrix products into 8 bits.

    Returns:
        What was written and what was left out, for people.

    Raises:
        ConfigError: as of ``export_model``.
        UnknownName, CheckpointError, DownloadError: as of ``load_model``.
    """
    from lavis_lite.models.export.write import check_target, export_model
    from lavis_lite.models.zoo import load_model

    check_target(folder, format, int8)  # before weights are fetched
    model = load_model(name, type, is_eval=True, checkpoint=checkpoint)
    found = export_model(model, folder, format, int8=int8)
    lines = [f"wrote {folder}: export.json, and as {format}{' (int8)' if int8 else ''}"]
    lines += [
        f"  {part.file}  differs by {part.difference:.1e} from the model"
        + (", before int8" if int8 else "")
        for part in found.parts.values()
    ]
    lines += [f"not exported: {name}, because {why}" for name, why in found.left_out.items()]
    return "\n".join(lines)
