"""What the local Hub knows, on disk: a SQLite file that survives a kill -9 at any moment, and the xorbs beside it."""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import os
import sqlite3
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

from localhub.xetformat import ZERO_HASH, FileInfo, Term, XorbInfo, chunks_of, unpack

OWNER, OWNER_TOKEN = "owner", "hf_owner_write"
_TABLES = """
create table if not exists settings (key text primary key, value text not null);
create table if not exists tokens (token text primary key, value text not null);
create table if not exists buckets (id text primary key, private integer not null, created_at text not null);
create table if not exists bucket_writes (
    seq integer primary key autoincrement, bucket text not null, path text not null, xet_hash text,
    size integer, mtime text, uploaded_at text not null, content_type text
);
create index if not exists bucket_paths on bucket_writes (bucket, path, seq);
create table if not exists xorbs (hash text primary key, size integer not null);
create table if not exists known_chunks (hash text primary key, block blob not null);
create table if not exists files (hash text primary key, size integer not null, sha256 text, terms text not null);
create table if not exists blobs (sha256 text primary key, data blob not null);
create table if not exists repos (
    kind text not null, id text not null, value text not null, primary key (kind, id)
);
create table if not exists commits (
    number integer primary key autoincrement, kind text not null, repo text not null, oid text not null,
    title text not null, at text not null, tree text not null
);
"""
# Settings and what they are without a word from the test; see `LocalHub.set`.
DEFAULTS: dict[str, Any] = {
    "page_size": 1000,
    "xet_token_seconds": 3600,
    "space_stages": ["BUILDING", "APP_STARTING", "RUNNING"],
    "space_hosts": {},
}


class BucketEntry(NamedTuple):
    """A file in a bucket, as one write left it."""

    path: str
    xet_hash: str
    size: int
    mtime: str | None
    uploaded_at: str
    content_type: str | None


def time_text(seconds: float) -> str:
    """Return a time, in seconds since 1970, as the Hub writes it."""
    return dt.datetime.fromtimestamp(seconds, dt.UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def now() -> str:
    """Return the present time as the Hub writes it."""
    return time_text(time.time())


class State:
    """All that the Hub knows. Not thread-safe: one event loop calls it, so that requests are applied one by one.

    Every statement outside `together` outlives a kill of the process as soon as it is executed. The buckets are kept as
    the list of all writes, so that a listing can be answered as it was some writes ago.
    """

    def __init__(self, directory: str) -> None:
        """Open the state in a directory, or begin one with the owner's account."""
        self.directory = directory
        os.makedirs(os.path.join(directory, "xorbs"), exist_ok=True)
        self.db = sqlite3.connect(os.path.join(directory, "state.sqlite"), isolation_level=None)
        # Killed processes lose nothing that the kernel has; power cuts are not what is tested here.
        self.db.execute("pragma synchronous=off")
        self.db.execute("pragma journal_mode=wal")
        self.db.executescript(_TABLES)
        if not self.db.execute("select 1 from tokens").fetchone():
            self.put_token(OWNER_TOKEN, user=OWNER, role="write", plan="pro")

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """Apply all statements of the block or none."""
        self.db.execute("begin immediate")
        try:
            yield
        except BaseException:
            self.db.execute("rollback")
            raise
        self.db.execute("commit")

    def save(self, name: str) -> None:
        """Keep a copy of all that is known now; xorbs are never changed and stay where they are."""
        with contextlib.closing(sqlite3.connect(os.path.join(self.directory, f"saved-{name}.sqlite"))) as target:
            self.db.backup(target)

    def load(self, name: str) -> None:
        """Go back to a copy."""
        path = os.path.join(self.directory, f"saved-{name}.sqlite")
        with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as source:
            source.backup(self.db)

    # Settings and accounts.

    def setting(self, key: str) -> Any:
        row = self.db.execute("select value from settings where key = ?", (key,)).fetchone()
        return json.loads(row[0]) if row else DEFAULTS[key]

    def set(self, key: str, value: Any) -> None:
        if key not in DEFAULTS:
            raise KeyError(key)
        self.db.execute("insert or replace into settings values (?, ?)", (key, json.dumps(value)))

    def put_token(self, token: str, **facts: Any) -> None:
        self.db.execute("insert or replace into tokens values (?, ?)", (token, json.dumps(facts)))

    def token(self, token: str) -> dict[str, Any] | None:
        row = self.db.execute("select value from tokens where token = ?", (token,)).fetchone()
        return json.loads(row[0]) if row else None

    # Buckets.

    def bucket(self, bucket: str) -> dict[str, Any] | None:
        row = self.db.execute("select id, private, created_at from buckets where id = ?", (bucket,)).fetchone()
        return {"id": row[0], "private": bool(row[1]), "createdAt": row[2]} if row else None

    def buckets(self, owner: str) -> list[str]:
        rows = self.db.execute("select id from buckets order by id").fetchall()
        return [row[0] for row in rows if row[0].split("/")[0] == owner]

    def create_bucket(self, bucket: str, *, private: bool) -> None:
        self.db.execute("insert into buckets values (?, ?, ?)", (bucket, private, now()))

    def write(self, bucket: str, path: str, xet_hash: str | None, **facts: str | None) -> None:
        """Add a file, or with None as its hash take it away."""
        size = self.file_size(xet_hash) if xet_hash else None
        row = (bucket, path, xet_hash, size, facts.get("mtime"), now(), facts.get("content_type"))
        self.db.execute(
            "insert into bucket_writes (bucket, path, xet_hash, size, mtime, uploaded_at, content_type)"
            " values (?, ?, ?, ?, ?, ?, ?)",
            row,
        )

    def entries(self, bucket: str, prefix: str = "", *, behind: int = 0) -> list[BucketEntry]:
        """Return the files of a bucket in the order of their paths, as they were some writes ago."""
        last = self.db.execute(
            "select seq from bucket_writes where bucket = ? order by seq desc limit 1 offset ?", (bucket, behind)
        ).fetchone()
        rows = self.db.execute(
            "select path, xet_hash, size, mtime, uploaded_at, content_type, max(seq) from bucket_writes"
            " where bucket = ? and seq <= ? and substr(path, 1, ?) = ? group by path order by path",
            (bucket, last[0] if last else 0, len(prefix), prefix),
        ).fetchall()
        return [BucketEntry(*row[:6]) for row in rows if row[1] is not None]

    def entry(self, bucket: str, path: str) -> BucketEntry | None:
        row = self.db.execute(
            "select path, xet_hash, size, mtime, uploaded_at, content_type from bucket_writes"
            " where bucket = ? and path = ? order by seq desc limit 1",
            (bucket, path),
        ).fetchone()
        return BucketEntry(*row) if row and row[1] is not None else None

    def forget_bucket(self, bucket: str) -> None:
        with self.together():
            self.db.execute("delete from bucket_writes where bucket = ?", (bucket,))
            self.db.execute("delete from buckets where id = ?", (bucket,))

    def move_bucket(self, bucket: str, to: str) -> None:
        with self.together():
            self.db.execute("update bucket_writes set bucket = ? where bucket = ?", (to, bucket))
            self.db.execute("update buckets set id = ? where id = ?", (to, bucket))

    # The xet store.

    def _xorb_path(self, xorb: str) -> str:
        return os.path.join(self.directory, "xorbs", xorb)

    def put_xorb(self, xorb: str, data: bytes) -> bool:
        """Keep a xorb; return whether it is new."""
        if self.has_xorb(xorb):
            return False
        path = self._xorb_path(xorb)
        with open(path + ".tmp", "wb") as file:
            file.write(data)
        os.replace(path + ".tmp", path)
        self.db.execute("insert into xorbs values (?, ?)", (xorb, len(data)))
        return True

    def has_xorb(self, xorb: str) -> bool:
        return self.db.execute("select 1 from xorbs where hash = ?", (xorb,)).fetchone() is not None

    def xorb(self, xorb: str) -> bytes:
        with open(self._xorb_path(xorb), "rb") as file:
            return file.read()

    def put_shard(self, files: list[FileInfo], xorbs: list[XorbInfo]) -> None:
        """Keep what a shard says, all of it or nothing."""
        with self.together():
            for info in xorbs:
                rows = ((chunk, info.block) for chunk in info.chunks)
                self.db.executemany("insert or ignore into known_chunks values (?, ?)", rows)
            for file in files:
                size = sum(term.size for term in file.terms)
                row = (file.hash, size, file.sha256, json.dumps(file.terms))
                self.db.execute("insert or replace into files values (?, ?, ?, ?)", row)

    def known_chunk(self, chunk: str) -> bytes | None:
        row = self.db.execute("select block from known_chunks where hash = ?", (chunk,)).fetchone()
        return row[0] if row else None

    def file_size(self, xet_hash: str) -> int | None:
        """Return the size of a file of the xet store, or None when it was never uploaded."""
        if xet_hash == ZERO_HASH:
            return 0
        row = self.db.execute("select size from files where hash = ?", (xet_hash,)).fetchone()
        return row[0] if row else None

    def file_of_sha256(self, sha256: str) -> tuple[str, int] | None:
        return self.db.execute("select hash, size from files where sha256 = ?", (sha256,)).fetchone()

    def terms(self, xet_hash: str) -> list[Term] | None:
        if xet_hash == ZERO_HASH:
            return []
        row = self.db.execute("select terms from files where hash = ?", (xet_hash,)).fetchone()
        return [Term(*term) for term in json.loads(row[0])] if row else None

    def content(self, xet_hash: str, start: int, end: int) -> bytes:
        """Return the bytes of a file from `start` up to and without `end`."""
        parts, at = [], 0
        for term in self.terms(xet_hash) or ():
            if at < end and at + term.size > start:
                xorb = self.xorb(term.xorb)
                place = at
                for chunk in chunks_of(xorb)[term.first : term.last]:
                    if place < end and place + chunk.size > start:
                        parts.append(unpack(xorb, chunk)[max(start - place, 0) : end - place])
                    place += chunk.size
            at += term.size
        return b"".join(parts)

    # Git repositories and what belongs to them.

    def put_blob(self, sha256: str, data: bytes) -> None:
        self.db.execute("insert or replace into blobs values (?, ?)", (sha256, data))

    def blob(self, sha256: str) -> bytes | None:
        row = self.db.execute("select data from blobs where sha256 = ?", (sha256,)).fetchone()
        return row[0] if row else None

    def repo(self, kind: str, repo: str) -> dict[str, Any] | None:
        row = self.db.execute("select value from repos where kind = ? and id = ?", (kind, repo)).fetchone()
        return json.loads(row[0]) if row else None

    def put_repo(self, kind: str, repo: str, value: dict[str, Any]) -> None:
        self.db.execute("insert or replace into repos values (?, ?, ?)", (kind, repo, json.dumps(value)))

    def forget_repo(self, kind: str, repo: str) -> None:
        with self.together():
            self.db.execute("delete from commits where kind = ? and repo = ?", (kind, repo))
            self.db.execute("delete from repos where kind = ? and id = ?", (kind, repo))

    def add_commit(self, kind: str, repo: str, oid: str, title: str, tree: dict[str, Any]) -> None:
        self.db.execute(
            "insert into commits (kind, repo, oid, title, at, tree) values (?, ?, ?, ?, ?, ?)",
            (kind, repo, oid, title, now(), json.dumps(tree)),
        )

    def commits(self, kind: str, repo: str) -> list[dict[str, Any]]:
        """Return the commits of a repository, the newest first."""
        rows = self.db.execute(
            "select oid, title, at, tree from commits where kind = ? and repo = ? order by number desc", (kind, repo)
        ).fetchall()
        return [{"oid": row[0], "title": row[1], "at": row[2], "tree": json.loads(row[3])} for row in rows]
