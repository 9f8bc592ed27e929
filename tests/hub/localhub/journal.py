"""The log of all requests, and the faults that are set: both outlive a kill of the Hub and a `load`."""

from __future__ import annotations

import os
import sqlite3

import msgspec

from localhub.faults import Fault


class Served(msgspec.Struct, frozen=True, kw_only=True):
    """A request as the Hub saw it.

    Attributes:
        number: its place in the log, from 1.
        method: as sent.
        path: as sent, unquoted.
        query: as sent.
        route: the method and the pattern of the route that took it, or its method and "unknown".
        host: the Host header.
        range: the Range header, or "".
        authorized: whether a token came with it.
        received: bytes of the body that came.
        sent: bytes of the body that went out, or 0 when the caller heard nothing.
        status: what was answered; 0 when the caller heard nothing.
        fault: the kind of fault that befell it, or "".
    """

    number: int
    method: str
    path: str
    query: str
    route: str
    host: str
    range: str
    authorized: bool = False
    received: int = 0
    sent: int = 0
    status: int = 0
    fault: str = ""


class Journal:
    """The log and the faults on disk. Not thread-safe."""

    def __init__(self, directory: str) -> None:
        self.db = sqlite3.connect(os.path.join(directory, "journal.sqlite"), isolation_level=None)
        self.db.execute("pragma synchronous=off")
        self.db.execute("pragma journal_mode=wal")
        self.db.execute("create table if not exists requests (number integer primary key, value blob not null)")
        self.db.execute(
            "create table if not exists faults (number integer primary key, value blob not null, seen integer not null)"
        )

    def put(self, served: Served) -> None:
        self.db.execute("insert or replace into requests values (?, ?)", (served.number, msgspec.json.encode(served)))

    def next_number(self) -> int:
        return (self.db.execute("select max(number) from requests").fetchone()[0] or 0) + 1

    def requests(self, since: int) -> list[Served]:
        rows = self.db.execute("select value from requests where number > ? order by number", (since,))
        return [msgspec.json.decode(row[0], type=Served) for row in rows]

    def set_fault(self, fault: Fault) -> None:
        self.db.execute("insert into faults (value, seen) values (?, 0)", (msgspec.json.encode(fault),))

    def clear_faults(self) -> None:
        self.db.execute("delete from faults")

    def faults(self) -> list[tuple[int, Fault, int]]:
        rows = self.db.execute("select number, value, seen from faults order by number")
        return [(row[0], msgspec.json.decode(row[1], type=Fault), row[2]) for row in rows]

    def meet(self, method: str, path: str, route: str) -> Fault | None:
        """Count a request at every fault that matches it, and return the first that is due."""
        met = None
        for number, fault, seen in self.faults():
            if fault.matches(method, path, route):
                # Counted on disk before it happens: a Hub that killed itself does not do so again at the retry.
                self.db.execute("update faults set seen = ? where number = ?", (seen + 1, number))
                if met is None and fault.due(seen + 1):
                    met = fault
        return met
