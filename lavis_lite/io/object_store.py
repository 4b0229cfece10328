"""Objects of stores such as S3 and Google Cloud Storage, read by fsspec's packages.

Credentials, regions and endpoints are those that the package of a store finds by itself: in its
environment variables and files. Imports no torch.
"""

from __future__ import annotations

from collections.abc import Iterator

from lavis_lite.errors import DownloadError
from lavis_lite.io.http import Unreachable
from lavis_lite.io.transfer import Limits, Partial

# The schemes that are read, and the package that does it: what it takes to install. fsspec knows
# more; those that read this machine, or run by ways of their own (file, ftp, zip), are left out.
STORES = {
    **{"s3": "s3fs", "gs": "gcsfs", "gcs": "gcsfs"},
    **{"az": "adlfs", "abfs": "adlfs"},
    **{"oss": "ossfs", "oci": "ocifs", "hdfs": "pyarrow", "memory": "fsspec"},
}
_PIECE = 1 << 20


def receive(address: str, partial: Partial, limits: Limits) -> bool:
    """Write an object to the partial file, from its beginning; return False: it never resumes.

    Args:
        address: ``scheme://bucket/key`` of one of `STORES`.
        partial: where to.
        limits: of its size.

    Raises:
        Unreachable: the store has a problem that may pass.
        DownloadError: no such object, no permission, too large, or no package that reads it.
        OSError: our own disk.
    """
    size = 0
    with open(partial.path, "wb") as file:
        for piece in _pieces(address):
            size += len(piece)
            if size > limits.max_bytes:
                partial.discard()
                raise DownloadError(f"{address}: is larger than {limits.max_bytes:,} bytes")
            file.write(piece)
    return False


def _pieces(address: str) -> Iterator[bytes]:
    import fsspec

    scheme = address.partition("://")[0]
    try:
        with fsspec.filesystem(scheme).open(address, "rb") as source:
            while piece := source.read(_PIECE):
                yield piece
    except ImportError as error:
        package = STORES[scheme]
        raise DownloadError(
            f"{address}: {scheme}:// is read by the package {package}, which is not installed or "
            f"does not work: pip install {package}"
        ) from error
    except (FileNotFoundError, IsADirectoryError) as error:
        raise DownloadError(f"{address}: no such object") from error
    except PermissionError as error:
        raise DownloadError(f"{address}: no permission to read it: {error}") from error
    except Exception as error:  # each package has errors of its own
        raise Unreachable(f"{type(error).__name__}: {error}") from error
