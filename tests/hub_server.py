"""The parts of the Hugging Face Hub's API that its client asks for, on 127.0.0.1, and the storage of large files."""

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

TOKEN = "hf_of_the_tests"
_REPOSITORY = r"(?P<repository>[\w.-]+/[\w.-]+)"
_API = rf"/api/(?P<kind>models|datasets)/{_REPOSITORY}"


class Commit(NamedTuple):
    """A revision of a repository."""

    oid: str
    message: str
    files: dict[str, bytes]


class Hub(ThreadingHTTPServer):
    """Repositories in memory. Large files go to, and are fetched from, a server of another origin, as on the Hub."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _HubHandler)
        self.storage = Storage()
        self.large = (".safetensors",)  # ends of the names of files that take the way of Git LFS
        self.repositories: dict[str, list[Commit]] = {}  # by kind and name, such as models/USER/NAME; newest last
        self.asked: list[str] = []  # method and path of each request

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def commit(self, place: str, files: dict[str, bytes], message: str = "") -> str:
        """Make a revision of a repository, and return its hash."""
        commits = self.repositories.setdefault(place, [])
        commits.append(Commit(hashlib.sha1(f"{place} {len(commits)}".encode()).hexdigest(), message, files))
        return commits[-1].oid

    def fetched(self) -> set[str]:
        """Return the names of the files whose content or size was asked for."""
        return {line.rpartition("/")[2] for line in self.asked if "/resolve/" in line}


class Storage(ThreadingHTTPServer):
    """Files by their SHA-256."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _StorageHandler)
        self.files: dict[str, bytes] = {}

    def url_of(self, oid: str) -> str:
        return f"http://127.0.0.1:{self.server_port}/{oid}"


@contextmanager
def serving() -> Iterator[Hub]:
    """Serve a Hub without repositories, each server in a thread."""
    with Hub() as hub, hub.storage:
        servers = hub, hub.storage
        threads = [threading.Thread(target=server.serve_forever, args=(0.01,)) for server in servers]
        for thread in threads:
            thread.start()
        try:
            yield hub
        finally:
            for server, thread in zip(servers, threads, strict=True):
                server.shutdown()
                thread.join()


def git_oid(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def lfs_oid(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""

    def body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        parts = []
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def answer(self, content: bytes = b"", status: int = 200, **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)


class _StorageHandler(_Handler):
    server: Storage

    def do_GET(self) -> None:
        assert "Authorization" not in self.headers  # the token is the Hub's alone
        self.answer(self.server.files[self.path[1:]])

    def do_PUT(self) -> None:
        content = self.body()
        assert lfs_oid(content) == self.path[1:]
        self.server.files[self.path[1:]] = content
        self.answer()


class _HubHandler(_Handler):
    server: Hub

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        self.server.asked.append(f"{self.command} {path}")
        if found := re.fullmatch(rf"{_API}(/revision/(?P<revision>.+))?", path):
            if (commit := self.commit_of(found)) is not None:
                files = [{"rfilename": name} for name in commit.files]
                self.say({"id": found["repository"], "sha": commit.oid, "siblings": files})
        elif found := re.fullmatch(rf"{_API}/tree/(?P<revision>[^/]+)", path):
            if (commit := self.commit_of(found)) is not None:
                self.say([self.listed(name, content) for name, content in commit.files.items()])
        elif found := re.fullmatch(
            rf"/(?P<kind>datasets/)?{_REPOSITORY}/resolve/(?P<revision>[^/]+)/(?P<name>.+)", path
        ):
            if (commit := self.commit_of(found)) is not None:
                self.give(commit, found["name"])
        else:
            self.refuse("EntryNotFound")

    do_HEAD = do_GET

    def do_POST(self) -> None:
        self.server.asked.append(f"POST {self.path}")
        content = self.body()
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            self.say({"error": "Invalid username or password."}, 401)
        elif self.path == "/api/repos/create":
            self.create(json.loads(content))
        elif self.path == "/api/validate-yaml":
            self.say({"errors": [], "warnings": []})
        elif found := re.fullmatch(rf"{_API}/preupload/(?P<revision>.+)", self.path):
            self.preupload(found, json.loads(content)["files"])
        elif re.fullmatch(rf"/(datasets/)?{_REPOSITORY}\.git/info/lfs/objects/batch", self.path):
            self.take_large(json.loads(content)["objects"])
        elif found := re.fullmatch(rf"{_API}/commit/(?P<revision>.+)", self.path):
            self.take(found, [json.loads(line) for line in content.splitlines()])
        else:
            self.refuse("EntryNotFound")

    def say(self, value: object, status: int = 200) -> None:
        self.answer(json.dumps(value).encode(), status, Content_Type="application/json")

    def page_of(self, place: str) -> str:
        return f"{self.server.url}/{place.removeprefix('models/')}"

    def refuse(self, code: str) -> None:
        self.answer(status=404, X_Error_Code=code)

    def commit_of(self, found: re.Match[str]) -> Commit | None:
        """Return the revision that a path names; None once the request is refused, for there is none."""
        kind = (found["kind"] or "models").rstrip("/")
        commits = self.server.repositories.get(f"{kind}/{found['repository']}")
        if commits is None:
            self.refuse("RepoNotFound")
            return None
        named = [commit for commit in commits if found["revision"] in (None, "main", commit.oid)]
        if not named:
            self.refuse("RevisionNotFound")
            return None
        return named[-1]

    def listed(self, name: str, content: bytes) -> dict[str, Any]:
        size = len(content)
        lfs = {"lfs": {"oid": lfs_oid(content), "size": size, "pointerSize": 130}} if self.is_large(name) else {}
        return {"type": "file", "path": name, "size": size, "oid": git_oid(content), **lfs}

    def is_large(self, name: str) -> bool:
        return name.endswith(self.server.large)

    def give(self, commit: Commit, name: str) -> None:
        if name not in commit.files:
            self.refuse("EntryNotFound")
            return
        content, headers = commit.files[name], {"X_Repo_Commit": commit.oid}
        if not self.is_large(name):
            self.answer(content, ETag=f'"{git_oid(content)}"', **headers)
            return
        oid = lfs_oid(content)
        self.server.storage.files[oid] = content
        linked = {"X_Linked_Etag": f'"{oid}"', "X_Linked_Size": str(len(content))}
        self.answer(status=302, Location=self.server.storage.url_of(oid), **headers, **linked)

    def create(self, wanted: dict[str, Any]) -> None:
        name = f"{wanted['organization']}/{wanted['name']}"
        place = f"{wanted.get('type', 'model')}s/{name}"
        is_new = place not in self.server.repositories
        if is_new:
            self.server.commit(place, {".gitattributes": b"*.safetensors filter=lfs\n"}, "initial commit")
        self.say({"url": self.page_of(place)}, 200 if is_new else 409)

    def preupload(self, found: re.Match[str], files: list[dict[str, Any]]) -> None:
        if (commit := self.commit_of(found)) is None:
            return
        told = []
        for name in (file["path"] for file in files):
            large, there = self.is_large(name), commit.files.get(name)
            known = {} if there is None else {"oid": lfs_oid(there) if large else git_oid(there)}
            told.append({"path": name, "uploadMode": "lfs" if large else "regular", "shouldIgnore": False, **known})
        self.say({"files": told})

    def take_large(self, objects: list[dict[str, Any]]) -> None:
        told = [
            {**one, "actions": {"upload": {"href": self.server.storage.url_of(one["oid"])}}}
            if one["oid"] not in self.server.storage.files
            else one
            for one in objects
        ]
        self.say({"transfer": "basic", "objects": told})

    def take(self, found: re.Match[str], lines: list[dict[str, Any]]) -> None:
        if (before := self.commit_of(found)) is None:
            return
        files, message = dict(before.files), ""
        for key, value in ((line["key"], line["value"]) for line in lines):
            match key:
                case "header":
                    message = value["summary"]
                case "file":
                    files[value["path"]] = base64.b64decode(value["content"])
                case "lfsFile":
                    files[value["path"]] = self.server.storage.files[value["oid"]]
                case "deletedFile":
                    del files[value["path"]]
        place = f"{found['kind']}/{found['repository']}"
        oid = self.server.commit(place, files, message)
        self.say({"success": True, "commitOid": oid, "commitUrl": f"{self.page_of(place)}/commit/{oid}"})
