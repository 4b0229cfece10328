"""Files and addresses: local, remote, cached; nothing here imports torch.

paths.py         any address -> a local file or an open one; the cache
hub.py           the hub's client; offline, or a hub that cannot be reached
hub_models.py    folders of models on the hub, published and fetched
download.py      a file of a URL: resumed, verified, once for all processes
transfer.py      one request of a download
http.py          the HTTP client: limits, deadlines, public addresses
web_images.py    one picture from a public web address
object_store.py  s3://, gs:// and the other schemes of fsspec
files.py         writing files whole
json_files.py    small JSON and text files
redaction.py     secrets taken out of what is written down
packages.py      installed packages that do not fit together
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lavis_lite.io.paths import cache_dir as cache_dir
    from lavis_lite.io.paths import here as here
    from lavis_lite.io.paths import is_remote as is_remote
    from lavis_lite.io.paths import local_path as local_path
    from lavis_lite.io.paths import offline as offline
    from lavis_lite.io.paths import open as open
    from lavis_lite.io.paths import path_manager as path_manager

__all__ = ["cache_dir", "here", "is_remote", "local_path", "offline", "open", "path_manager"]


def __getattr__(name: str) -> Any:
    """Hand a name on when it is first used: most commands need no address, and save its import."""
    if name in __all__:
        return getattr(importlib.import_module("lavis_lite.io.paths"), name)
    raise AttributeError(f"module 'lavis_lite.io' has no attribute {name!r}")
