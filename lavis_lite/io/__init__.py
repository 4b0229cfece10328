"""Files and addresses: local, remote, cached; nothing here imports torch.

paths.py            any address -> a local file; the cache; the hub
download.py         a file of a URL: resumed, verified, once for all processes
http_transfer.py    one request of a download
http_connection.py  time limits and addresses of connections
files.py            writing files whole
redaction.py        secrets taken out of what is written down
packages.py         installed packages that do not fit together
"""

from lavis_lite.io.paths import cache_dir, local_path, offline, path_manager

__all__ = ["cache_dir", "local_path", "offline", "path_manager"]
