"""Libraries that decode images, kept from writing to a user's terminal."""

from __future__ import annotations

import ctypes
import functools
import logging
import warnings

from PIL import _imaging


@functools.cache
def silence_decoders() -> None:
    """Turn off what PIL and libtiff say about damaged images; our own reasons say it.

    Once per process, and processes that are forked from it inherit it. libtiff writes to the
    terminal from C; where its functions cannot be found it goes on doing so.
    """
    warnings.filterwarnings("ignore", module=r"PIL\.")
    logging.getLogger("PIL").setLevel(logging.CRITICAL)
    try:
        library = ctypes.CDLL(_imaging.__file__)
        for name in ("TIFFSetWarningHandler", "TIFFSetErrorHandler"):
            handler = getattr(library, name)
            handler.argtypes, handler.restype = [ctypes.c_void_p], ctypes.c_void_p
            handler(None)
    except (AttributeError, OSError, TypeError):
        logging.getLogger(__name__).debug("libtiff cannot be silenced")
