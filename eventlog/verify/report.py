"""What `verify` reports: findings, each with a code, and the account of each project and of the whole store."""

from __future__ import annotations

from typing import Final, Literal, get_args

import msgspec

Code = Literal[
    "blob_changed",
    "blob_missing",
    "checksum_wrong",
    "conflict",
    "damaged",
    "doubled",
    "dropped",
    "file_changed",
    "file_missing",
    "gap",
    "index_wrong",
    "lost",
    "manifest_damaged",
    "misplaced",
    "newer_format",
    "order_wrong",
    "quarantined",
    "rows_wrong",
    "runs_wrong",
    "unexpected",
    "watermark_wrong",
]
CODES: Final[tuple[str, ...]] = get_args(Code)


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that is not as it should be.

    Attributes:
        code: what kind of thing.
        project: in which project.
        where: the file, relative to the store, or the writer.
        message: one sentence for people.
    """

    code: Code
    project: str
    where: str
    message: str


class Note(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that is normal and worth knowing: a torn tail, records met twice.

    Attributes:
        project: in which project.
        where: the file, relative to the store, or the writer.
        message: one sentence for people.
    """

    project: str
    where: str
    message: str


class Counts(msgspec.Struct, frozen=True, kw_only=True):
    """An account of records.

    Attributes:
        records: that are there: `folded` + `tail`.
        folded: in the snapshot.
        tail: after the watermarks, in segments.
        gaps: records that are known to be missing.
        dropped: records that writers say they could not keep.
        duplicates: records met a second time with the same content, and left out: benign.
        quarantined: damaged byte ranges that were set aside.
        lost: records that the manifest covers and the snapshot does not have.
        doubled: rows of records that are in the snapshot more than once.
        writers: that have a directory or a watermark.
        files: data files that the manifest names.
    """

    records: int = 0
    folded: int = 0
    tail: int = 0
    gaps: int = 0
    dropped: int = 0
    duplicates: int = 0
    quarantined: int = 0
    lost: int = 0
    doubled: int = 0
    writers: int = 0
    files: int = 0


class ProjectReport(Counts, frozen=True, kw_only=True):
    """The account of one project.

    Attributes:
        project: its name.
        version: of the snapshot that was verified, 0 for none.
        checksum: by table, the order-free checksum recomputed from the snapshot's rows, 16 hex digits.
        findings: what is not as it should be.
        notes: what is worth knowing.
    """

    project: str
    version: int
    checksum: dict[str, str]
    findings: list[Finding]
    notes: list[Note]


class Report(Counts, frozen=True, kw_only=True):
    """The account of a store.

    Attributes:
        root: the store's directory.
        ok: whether every record is accounted for: there is no finding.
        checksum: by project and table, as in the projects' accounts.
        findings: those of all projects.
        projects: the account of each, in order of their names.
    """

    root: str
    ok: bool
    checksum: dict[str, dict[str, str]]
    findings: list[Finding]
    projects: list[ProjectReport]


def total(root: str, projects: list[ProjectReport]) -> Report:
    """Return the account of a store from those of its projects."""
    counts = {name: sum(getattr(project, name) for project in projects) for name in Counts.__struct_fields__}
    findings = [finding for project in projects for finding in project.findings]
    return Report(
        **counts,
        root=root,
        ok=not findings,
        checksum={project.project: project.checksum for project in projects},
        findings=findings,
        projects=projects,
    )
