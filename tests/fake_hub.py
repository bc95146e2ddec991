"""A Hub on this machine, over HTTP, that can fail in every way that the real one does."""

import contextlib
import hashlib
import json
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
    """Serves the files of one directory as the model repository `me/lib`."""

    daemon_threads = True

    def __init__(self, files: Path, plan: Plan = nothing) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files, self.plan, self.silence_s = files, plan, 30.0
        self.asked: list[tuple[str, str]] = []

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

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

    def _answer(self) -> None:
        path = unquote(urlsplit(self.path).path)
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
        if path.startswith("/api/models/me/lib"):
            content = json.dumps(self._facts(path)).encode()
            return self._send(200, content[:20] if fault else content, {"Content-Type": "application/json"})
        return self._file(path, fault)

    def _facts(self, path: str) -> Any:
        files = [p for p in sorted(self.server.files.rglob("*")) if p.is_file()]
        listed = [_entry(p, str(p.relative_to(self.server.files))) for p in files]
        if "/tree/" in path:
            return [{"type": "file", "path": entry["rfilename"], **entry, "oid": entry["blobId"]} for entry in listed]
        return {"id": "me/lib", "modelId": "me/lib", "sha": SHA, "private": False, "tags": [], "siblings": listed}

    def _file(self, path: str, fault: str | None) -> None:
        name = path.removeprefix(f"/me/lib/resolve/{SHA}/")
        file = self.server.files / name
        if not file.is_file():
            return self._send(404, b"", {"X-Error-Code": "EntryNotFound"})
        content, entry = file.read_bytes(), _entry(file, name)
        etag = entry["lfs"]["sha256"] if "lfs" in entry else entry["blobId"]
        headers = {"ETag": f'"{etag}"', "X-Repo-Commit": SHA, "Accept-Ranges": "bytes"}
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
        if self.command == "GET":
            self.wfile.write(content[: len(content) // 2] if half else content)


def _entry(file: Path, name: str) -> dict[str, Any]:
    """Describe a file as the Hub does: a large one by its sha256, another by git's hash of it."""
    content = file.read_bytes()
    blob = hashlib.sha1(f"blob {len(content)}\0".encode() + content).hexdigest()
    entry: dict[str, Any] = {"rfilename": name, "size": len(content), "blobId": blob}
    if name.endswith(".safetensors"):
        sha = hashlib.sha256(content).hexdigest()
        entry["lfs"] = {"sha256": sha, "oid": sha, "size": len(content), "pointerSize": 134}
    return entry
