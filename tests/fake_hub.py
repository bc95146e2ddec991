"""A Hub on this machine, over HTTP, that can fail in every way that the real one does; it takes commits, too."""

import base64
import contextlib
import hashlib
import json
import re
import shutil
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

SHA = "c0ffee" + "0" * 34
FAULTS = ("429", "500", "503", "silence", "reset", "half", "damaged", "not JSON")
Plan = Callable[[str, str], str | None]
"""Method and path of a request -> the fault that it meets, if any."""


def nothing(_method: str, _path: str) -> None:
    """Plan no fault."""


class FakeHub(ThreadingHTTPServer):
    """Serves directories as model repositories, one of them as `me/lib`.

    repos: name -> directory, to which commits are written; shas: their last commits; stored: large files by sha256 that
    were sent, shown or not; listings: what a repository claims to hold, instead of what it does.
    """

    daemon_threads = True

    def __init__(self, files: Path, plan: Plan = nothing) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.repos, self.plan, self.silence_s = {"me/lib": files}, plan, 30.0
        self.asked: list[tuple[str, str]] = []
        self.shas: dict[str, str] = {}
        self.stored: dict[str, bytes] = {}
        self.collections: dict[str, list[tuple[str, str]]] = {}
        self.listings: dict[str, list[dict[str, Any]]] = {}
        self.made: list[dict[str, Any]] = []

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def constants(self, patience_s: float | None = None) -> dict[str, Any]:
        """What `huggingface_hub.constants` must hold to ask this Hub, and to wait for it only so long."""
        template = self.endpoint + "/{repo_id}/resolve/{revision}/{filename}"
        waits = dict.fromkeys(("HF_HUB_DOWNLOAD_TIMEOUT", "HF_HUB_ETAG_TIMEOUT"), patience_s) if patience_s else {}
        return {"ENDPOINT": self.endpoint, "HUGGINGFACE_CO_URL_TEMPLATE": template, "HF_HUB_OFFLINE": False, **waits}

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of who hung up."""


@contextlib.contextmanager
def serving(files: Path, plan: Plan = nothing) -> Iterator[FakeHub]:
    """Run a Hub in a thread."""
    hub = FakeHub(files, plan)
    thread = threading.Thread(target=hub.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        hub.shutdown()
        hub.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    server: FakeHub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def do_PUT(self) -> None:
        self._answer()

    def _answer(self) -> None:
        path = unquote(urlsplit(self.path).path)
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.server.asked.append((self.command, path))
        fault = self.server.plan(self.command, path)
        self.close_connection = fault is not None
        if fault in ("429", "500", "503"):
            return self._send(int(fault), b"{}", {"Content-Type": "application/json"})
        if fault == "silence":
            threading.Event().wait(self.server.silence_s)  # time.sleep may be another in a test
            return None
        if fault == "reset":
            return None
        if self.command == "PUT":
            sha = path.rpartition("/")[2]
            kept = hashlib.sha256(body).hexdigest() == sha
            self.server.stored.update({sha: body} if kept else {})
            return self._send(200 if kept else 400, b"", {})
        if self.command == "POST":
            return self._send(*_Writing(self.server, path, body).answer(), {"Content-Type": "application/json"})
        if path.startswith("/api/collections/"):
            return self._json(self._collection(path.removeprefix("/api/collections/")), fault)
        if found := re.match(r"/api/models/([^/]+/[^/]+)", path):
            if found[1] not in self.server.repos:
                return self._send(404, b"{}", {"X-Error-Code": "RepoNotFound"})
            return self._json(self._facts(path, found[1]), fault)
        return self._file(path, fault)

    def _json(self, value: Any, fault: str | None) -> None:
        content = json.dumps(value).encode()
        return self._send(200, content[:20] if fault else content, {"Content-Type": "application/json"})

    def _collection(self, slug: str) -> Any:
        items = [
            {
                "_id": f"{n:024d}",
                "id": name,
                "type": kind,
                "position": n,
                **({"author": "x"} if kind == "model" else {}),
            }
            for n, (kind, name) in enumerate(self.server.collections[slug])
        ]
        facts = {"slug": slug, "title": "t", "owner": {"name": "me", "type": "user"}, "items": items, "position": 0}
        return {**facts, "lastUpdated": "2026-01-01T00:00:00.000Z", "private": False, "theme": "green", "upvotes": 0}

    def _facts(self, path: str, repo: str) -> Any:
        place = self.server.repos[repo]
        files = [p for p in sorted(place.rglob("*")) if p.is_file()]
        listed = self.server.listings.get(repo) or [_entry(p, str(p.relative_to(place))) for p in files]
        if "/tree/" in path:
            return [{"type": "file", "path": entry["rfilename"], **entry, "oid": entry["blobId"]} for entry in listed]
        sha = self.server.shas.get(repo, SHA)
        return {"id": repo, "modelId": repo, "sha": sha, "private": False, "tags": [], "siblings": listed}

    def _file(self, path: str, fault: str | None) -> None:
        found = re.fullmatch(r"/([^/]+/[^/]+)/resolve/([0-9a-f]{40})/(.+)", path)
        file = self.server.repos.get(found[1] if found else "", Path("/nowhere")) / (found[3] if found else "")
        if found is None or not file.is_file():
            return self._send(404, b"", {"X-Error-Code": "EntryNotFound"})
        content, entry = file.read_bytes(), _entry(file, found[3])
        etag = entry["lfs"]["sha256"] if "lfs" in entry else entry["blobId"]
        headers = {"ETag": f'"{etag}"', "X-Repo-Commit": found[2], "Accept-Ranges": "bytes"}
        start = 0
        if wanted := self.headers.get("Range"):
            start = int(wanted.removeprefix("bytes=").partition("-")[0])
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        content = content[start:]
        if fault == "damaged" and content:
            content = content[:-1] + bytes([content[-1] ^ 1])
        return self._send(206 if start else 200, content, headers, half=fault == "half")

    def _send(self, status: int, content: bytes, headers: dict[str, str], *, half: bool = False) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content[: len(content) // 2] if half else content)


class _Writing:
    """What a Hub does when something is sent to it."""

    def __init__(self, server: FakeHub, path: str, body: bytes) -> None:
        self.server, self.path, self.body = server, path, body

    def answer(self) -> tuple[int, bytes]:
        """Do it; give status and content."""
        if self.path == "/api/validate-yaml":
            return 200, b'{"errors": [], "warnings": []}'
        if self.path == "/api/repos/create":
            return self._create(json.loads(self.body))
        if self.path.endswith(".git/info/lfs/objects/batch"):
            objects = [self._batch(one) for one in json.loads(self.body)["objects"]]
            return 200, json.dumps({"transfer": "basic", "objects": objects}).encode()
        if found := re.fullmatch(r"/api/models/([^/]+/[^/]+)/(preupload|commit)/(.+)", self.path):
            return self._preupload(found[1]) if found[2] == "preupload" else self._commit(found[1])
        return 404, b"{}"

    def _create(self, wanted: dict[str, Any]) -> tuple[int, bytes]:
        repo = f"{wanted.get('organization') or 'me'}/{wanted['name']}"
        self.server.made.append(wanted)
        is_new = repo not in self.server.repos
        if is_new:
            place = self.server.repos["me/lib"].with_name(repo.replace("/", "--"))
            place.mkdir()
            self.server.repos[repo] = place
        return 200 if is_new else 409, json.dumps({"url": f"{self.server.endpoint}/{repo}"}).encode()

    def _batch(self, one: dict[str, Any]) -> dict[str, Any]:
        shown = {
            hashlib.sha256(path.read_bytes()).hexdigest()
            for place in self.server.repos.values()
            for path in place.rglob("*.safetensors")
        }
        if one["oid"] in self.server.stored or one["oid"] in shown:
            return one
        return {**one, "actions": {"upload": {"href": f"{self.server.endpoint}/upload/{one['oid']}"}}}

    def _preupload(self, repo: str) -> tuple[int, bytes]:
        files = []
        for one in json.loads(self.body)["files"]:
            there, is_large = self.server.repos[repo] / one["path"], one["path"].endswith(".safetensors")
            entry = _entry(there, one["path"]) if there.is_file() else {}
            oid = {"oid": entry["lfs"]["sha256"] if "lfs" in entry else entry["blobId"]} if entry else {}
            mode = "lfs" if is_large else "regular"
            files.append({"path": one["path"], "uploadMode": mode, "shouldIgnore": False, **oid})
        return 200, json.dumps({"files": files}).encode()

    def _commit(self, repo: str) -> tuple[int, bytes]:
        header, *changes = [json.loads(line) for line in self.body.splitlines()]
        place, now = self.server.repos[repo], self.server.shas.get(repo, SHA)
        if header["value"].get("parentCommit", now) != now:
            return 412, b'{"error": "The branch has moved"}'
        for change in changes:
            value = change["value"]
            target = place / value["path"]
            assert target.resolve().is_relative_to(place.resolve())
            if change["key"] == "deletedFolder":
                shutil.rmtree(target)
                continue
            if change["key"] == "deletedFile":
                target.unlink()
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            is_large = change["key"] == "lfsFile"
            content = self._large(value["oid"]) if is_large else base64.b64decode(value["content"])
            target.unlink(missing_ok=True)
            target.write_bytes(content)
        self.server.shas[repo] = sha = hashlib.sha1(now.encode() + self.body).hexdigest()
        return 200, json.dumps({"commitUrl": f"{self.server.endpoint}/{repo}/commit/{sha}", "commitOid": sha}).encode()

    def _large(self, oid: str) -> bytes:
        """Find what was sent under a hash; a commit of what never came is a mistake of its sender's."""
        return self.server.stored[oid]


def _entry(file: Path, name: str) -> dict[str, Any]:
    """Describe a file as the Hub does: a large one by its sha256, another by git's hash of it."""
    content = file.read_bytes()
    blob = hashlib.sha1(f"blob {len(content)}\0".encode() + content).hexdigest()
    entry: dict[str, Any] = {"rfilename": name, "size": len(content), "blobId": blob}
    if name.endswith(".safetensors"):
        sha = hashlib.sha256(content).hexdigest()
        entry["lfs"] = {"sha256": sha, "oid": sha, "size": len(content), "pointerSize": 134}
    return entry
