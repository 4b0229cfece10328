"""ONNX files: written from torch's exported programs, run by onnxruntime, put into 8 bits."""

from __future__ import annotations

import importlib
import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lavis_lite.errors import ConfigError

if TYPE_CHECKING:
    import numpy
    from torch.export import ExportedProgram

    from lavis_lite.models.export.parts import Part

PACKAGES = ("onnx", "onnxscript", "onnxruntime")
# A protobuf holds 2 GB at most: larger weights go into a file of their own beside the graph.
LARGEST = 1_500_000_000


def check_installed(*packages: str) -> None:
    """Raise ConfigError, with what to install, where one of the packages cannot be imported."""
    for package in packages:
        try:
            importlib.import_module(package)
        except ImportError as error:
            raise ConfigError(
                f"ONNX files need {package} ({error}): pip install 'lavis_lite[export]'"
            ) from None


def write(program: ExportedProgram, part: Part, path: Path) -> None:
    """Write an exported program as an ONNX file, with the names of the part's inputs and outputs.

    Weights of more than 1.5 GB go into a second file, whose name ends with ``.data``.
    """
    import torch

    size = sum(weight.numel() * weight.element_size() for weight in program.state_dict.values())
    with _quiet():
        torch.onnx.export(
            program,
            (),
            path,
            input_names=list(part.inputs),
            output_names=list(part.outputs),
            dynamic_shapes=tuple(dict(axes) for _, axes in part.inputs.values()),  # their names
            dynamo=True,
            external_data=size > LARGEST,
            verbose=False,
        )


def to_int8(path: Path) -> None:
    """Put the weights of an ONNX file's matrix products into 8 bits, in place.

    Each column of a matrix has a scale of its own; activations are quantised as they come (dynamic
    quantisation), and everything else stays in fp32.
    """
    from onnxruntime.quantization import QuantType, quantize_dynamic

    whole = path.with_suffix(".fp32.onnx")
    path.replace(whole)
    with _quiet():
        quantize_dynamic(
            whole,
            path,
            op_types_to_quantize=["MatMul", "Gemm"],
            per_channel=True,
            weight_type=QuantType.QInt8,
            use_external_data_format=(data := Path(f"{path}.data")).exists(),
        )
    whole.unlink()
    data.unlink(missing_ok=True)


class Session:
    """An ONNX file that onnxruntime runs on the CPU.

    Args:
        path: the file.
        threads: of a product; None leaves it to onnxruntime.

    Raises:
        ConfigError: onnxruntime is not installed.
    """

    def __init__(self, path: Path, threads: int | None = None) -> None:
        check_installed("onnxruntime")
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads or 0
        self._session: Any = onnxruntime.InferenceSession(
            path, options, providers=["CPUExecutionProvider"]
        )

    def __call__(self, inputs: Mapping[str, numpy.ndarray]) -> dict[str, numpy.ndarray]:
        """Return the outputs by name."""
        names = [output.name for output in self._session.get_outputs()]
        return dict(zip(names, self._session.run(names, dict(inputs)), strict=True))


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep torch's and onnxruntime's remarks on their own progress out of the user's sight."""
    loggers = [logging.getLogger(name) for name in ("", "torch.onnx", "onnxscript", "onnx_ir")]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)
