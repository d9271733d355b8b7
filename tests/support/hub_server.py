"""A Hub on this machine: the few routes of its HTTP interface that a push uses, over files held in memory."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

TOKEN = "a-token-with-the-right-to-write"


class Hub:
    """What the server holds: repositories by kind and id, each with its branches of files; uploaded large objects."""

    def __init__(self) -> None:
        self.repos: dict[tuple[str, str], dict] = {}
        self.objects: dict[str, bytes] = {}
        self.forbidden: set[str] = set()
        self.broken_uploads = False
        self.commits: list[str] = []
        self.asked: list[str] = []
        self.url = ""

    def add(
        self, name: str, kind: str = "models", private: bool = False, files: dict[str, bytes] | None = None
    ) -> None:
        self.repos[kind, name] = {"private": private, "branches": {"main": dict(files or {})}}

    def files(self, name: str, branch: str = "main") -> dict[str, bytes]:
        return self.repos["models", name]["branches"][branch]


def _handler(hub: Hub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *arguments: object) -> None:
            pass

        def _say(self, value: object, status: int = 200, **headers: str) -> None:
            body = json.dumps(value).encode()
            self.send_response(status)
            for name, text in {"Content-Type": "application/json", "Content-Length": str(len(body)), **headers}.items():
                self.send_header(name.replace("_", "-"), text)
            self.end_headers()
            self.wfile.write(body)

        def _body(self) -> bytes:
            if self.headers.get("Transfer-Encoding") != "chunked":
                return self.rfile.read(int(self.headers.get("Content-Length") or 0))
            parts = []
            while size := int(self.rfile.readline(), 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)

        def _place(self) -> tuple[list[str], bytes]:
            path = urlsplit(self.path).path
            hub.asked.append(f"{self.command} {path}")
            return [unquote(part) for part in path.strip("/").split("/")], self._body()

        def _allowed(self) -> bool:
            if self.headers.get("Authorization") == f"Bearer {TOKEN}":
                return True
            self._say({"error": "Invalid username or password."}, 401)
            return False

        def _missing(self) -> None:
            self._say({"error": "Repository not found"}, 404, X_Error_Code="RepoNotFound")

        def do_GET(self) -> None:
            parts, _ = self._place()
            if not self._allowed():
                return
            if parts == ["api", "whoami-v2"]:
                self._say({"type": "user", "name": "me"})
                return
            kind, name = parts[1], "/".join(parts[2:4])
            repo = hub.repos.get((kind, name))
            if repo is None:
                self._missing()
            elif "tree" in parts:
                files = repo["branches"][parts[5]]
                self._say([{"type": "file", "path": path, "size": len(files[path]), "oid": "0"} for path in files])
            else:
                self._say({"id": name, "private": repo["private"], "sha": "0" * 40, "siblings": []})

        def do_POST(self) -> None:
            parts, body = self._place()
            if parts == ["api", "validate-yaml"]:
                bad = b"not-valid" in body
                self._say({"errors": [{"message": "bad metadata"}] if bad else [], "warnings": []}, 400 if bad else 200)
                return
            if not self._allowed():
                return
            if parts == ["api", "repos", "create"]:
                asked = json.loads(body)
                name = f"{asked.get('organization') or 'me'}/{asked['name']}"
                if name in hub.forbidden:
                    self._say({"error": "You don't have the rights to create a model under this namespace"}, 403)
                    return
                hub.add(name, private=bool(asked.get("private")) or asked.get("visibility") == "private")
                self._say({"url": f"{hub.url}/{name}", "name": name, "id": "0"})
            elif parts[-1] == "batch":
                objects = json.loads(body)["objects"]
                upload = {one["oid"]: {"upload": {"href": f"{hub.url}/objects/{one['oid']}"}} for one in objects}
                told = [{"oid": one["oid"], "size": one["size"], "actions": upload[one["oid"]]} for one in objects]
                self._say({"transfer": "basic", "objects": told})
            elif parts[4] == "preupload":
                found = [one["path"] for one in json.loads(body)["files"]]
                modes = {path: "lfs" if path.endswith(".safetensors") else "regular" for path in found}
                self._say(
                    {"files": [{"path": path, "uploadMode": modes[path], "shouldIgnore": False} for path in found]}
                )
            elif parts[4] == "branch":
                branches = hub.repos["models", "/".join(parts[2:4])]["branches"]
                branches.setdefault(parts[5], dict(branches["main"]))
                self._say({})
            else:
                self._commit("/".join(parts[2:4]), parts[5], body)

        def _commit(self, name: str, branch: str, body: bytes) -> None:
            files = hub.files(name, branch)
            for line in map(json.loads, body.splitlines()):
                value = line["value"]
                if line["key"] == "header":
                    hub.commits.append(value["summary"])
                elif line["key"] == "file":
                    files[value["path"]] = base64.b64decode(value["content"])
                elif line["key"] == "lfsFile":
                    files[value["path"]] = hub.objects[value["oid"]]
                elif line["key"] == "deletedFile":
                    del files[value["path"]]
            self._say({"success": True, "commitOid": "1" * 40, "commitUrl": f"{hub.url}/{name}/commit/{'1' * 40}"})

        def do_PUT(self) -> None:
            parts, body = self._place()
            if hub.broken_uploads:
                self._say({"error": "no space left"}, 400)
                return
            assert hashlib.sha256(body).hexdigest() == parts[-1]
            hub.objects[parts[-1]] = body
            self._say({})

    return Handler


@contextmanager
def running_hub():
    """Serve a Hub on a free port of loopback."""
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(hub))
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
