"""A hub on this machine: the few answers that publishing and fetching a model's folder need.

with HubSite(token="hf_secret") as hub:
    hub.take(monkeypatch, tmp_path)
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
from huggingface_hub import constants

from lavis_lite.io import hub

_API = re.compile(r"/api/models/(?P<repo>[^/]+/[^/]+)(?:/(?P<what>[a-z-]+)/(?P<rev>[^/]+))?")
_FILE = re.compile(r"/(?P<repo>[^/]+/[^/]+)/resolve/(?P<rev>[^/]+)/(?P<file>.+)")


class HubSite:
    """Repositories as commits of files; branches name commits.

    Args:
        token: that every request must carry; None: all may read and write.

    Attributes:
        commits: repository -> commit -> file -> bytes.
        branches: repository -> branch -> commit.
        created: what the requests for new repositories said.
        requests: method and path of each request.
    """

    def __init__(self, token: str | None = None) -> None:
        self.token = token
        self.commits: dict[str, dict[str, dict[str, bytes]]] = {}
        self.branches: dict[str, dict[str, str]] = {}
        self.created: list[dict[str, Any]] = []
        self.requests: list[str] = []
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
        self.server.site = self  # type: ignore[attr-defined]

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server.server_address[1]}"

    def __enter__(self) -> HubSite:
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self.server.shutdown()
        self.server.server_close()

    def take(self, patch: pytest.MonkeyPatch, folder: Path) -> None:
        """Let this process take the site for the hub, with empty caches and no token."""
        for name in (*hub._OFFLINE, "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "HF_TOKEN"):
            patch.delenv(name, raising=False)
            patch.delenv(name.lower(), raising=False)
        patch.setenv("LAVIS_LITE_CACHE", str(folder / "cache"))
        patch.setattr(constants, "ENDPOINT", self.address)
        template = f"{self.address}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        patch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        patch.setattr(constants, "HF_HUB_OFFLINE", False)
        patch.setattr(constants, "HF_TOKEN_PATH", str(folder / "no-token"))

    def commit(self, repo: str, branch: str, files: dict[str, bytes]) -> str:
        """Add a commit with these files in place of those of their names; return its id."""
        before = self.commits[repo].get(self.branches[repo].get(branch, ""), {})
        content = {**before, **files}
        text = repr([len(self.commits[repo]), sorted(content)])
        commit = hashlib.sha1(text.encode()).hexdigest()
        self.commits[repo][commit] = content
        self.branches[repo][branch] = commit
        return commit

    def found(self, repo: str, revision: str) -> str | None:
        """The commit that a branch or an id means."""
        commit = self.branches.get(repo, {}).get(revision, revision)
        return commit if commit in self.commits.get(repo, {}) else None


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    @property
    def site(self) -> HubSite:
        return self.server.site  # type: ignore[attr-defined, no-any-return]

    def do_GET(self) -> None:
        self._answer(b"")

    def do_HEAD(self) -> None:
        self._answer(b"")

    def do_POST(self) -> None:
        self._answer(self.rfile.read(int(self.headers.get("Content-Length") or 0)))

    def _answer(self, body: bytes) -> None:
        path = unquote(urlsplit(self.path).path)
        self.site.requests.append(f"{self.command} {path}")
        if self.site.token and self.headers.get("Authorization") != f"Bearer {self.site.token}":
            self._json({"error": "Invalid credentials"}, 401)
        elif path == "/api/repos/create":
            self._create(json.loads(body))
        elif path == "/api/validate-yaml":
            self._json({"errors": [], "warnings": []})
        elif match := _API.fullmatch(path):
            self._api(match, body)
        elif match := _FILE.fullmatch(path):
            self._file(match)
        else:
            self._json({"error": "no such page"}, 404)

    def _create(self, wish: dict[str, Any]) -> None:
        repo = f"{wish['organization']}/{wish['name']}"
        if repo in self.site.commits:
            url = f"{self.site.address}/{repo}"
            self._json({"error": "You already created this model repo", "url": url}, 409)
            return
        self.site.created.append(wish)
        self.site.commits[repo], self.site.branches[repo] = {}, {}
        self.site.commit(repo, "main", {".gitattributes": b""})
        self._json({"url": f"{self.site.address}/{repo}"})

    def _api(self, match: re.Match[str], body: bytes) -> None:
        repo, what, revision = match["repo"], match["what"], match["rev"] or "main"
        site = self.site
        if repo not in site.commits:
            self._json({"error": "Repository not found"}, 404, code="RepoNotFound")
        elif what == "preupload":
            files = [
                {"path": file["path"], "uploadMode": "regular", "shouldIgnore": False}
                for file in json.loads(body)["files"]
            ]
            self._json({"files": files})
        elif what == "branch":
            site.branches[repo].setdefault(revision, site.branches[repo]["main"])
            self._json({})
        elif what == "commit":
            lines = [json.loads(line) for line in body.splitlines()]
            files = {
                line["value"]["path"]: base64.b64decode(line["value"]["content"])
                for line in lines
                if line["key"] == "file"
            }
            commit = site.commit(repo, revision, files)
            self._json({"commitUrl": f"{site.address}/{repo}/commit/{commit}", "commitOid": commit})
        elif (commit := site.found(repo, revision)) is None:
            self._json({"error": "Invalid rev id"}, 404, code="RevisionNotFound")
        else:
            siblings = [{"rfilename": name} for name in site.commits[repo][commit]]
            self._json({"id": repo, "modelId": repo, "sha": commit, "siblings": siblings})

    def _file(self, match: re.Match[str]) -> None:
        commit = self.site.found(match["repo"], match["rev"])
        content = self.site.commits.get(match["repo"], {}).get(commit or "", {}).get(match["file"])
        if commit is None or content is None:
            self._json({"error": "Entry not found"}, 404, code="EntryNotFound")
            return
        self.send_response(200)
        self.send_header("X-Repo-Commit", commit)
        self.send_header("ETag", f'"{hashlib.sha1(content).hexdigest()}"')
        self._end(content)

    def _json(self, content: dict[str, Any], status: int = 200, code: str | None = None) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        if code:
            self.send_header("X-Error-Code", code)
        self._end(json.dumps(content).encode())

    def _end(self, content: bytes) -> None:
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, *args: Any) -> None:
        """Nothing."""
