"""Files and addresses: local, remote, cached; nothing here imports torch.

paths.py         any address -> a local file or an open one; the cache; the hub
download.py      a file of a URL: resumed, verified, once for all processes
transfer.py      one request of a download
http.py          the HTTP client: limits, deadlines, public addresses
object_store.py  s3://, gs:// and the other schemes of fsspec
files.py         writing files whole
redaction.py     secrets taken out of what is written down
packages.py      installed packages that do not fit together
"""

from lavis_lite.io.paths import cache_dir, here, is_remote, local_path, offline, open, path_manager

__all__ = ["cache_dir", "here", "is_remote", "local_path", "offline", "open", "path_manager"]
