"""Verify a store: account for every record of every writer. It finds, and never repairs."""

from __future__ import annotations

import os
from collections.abc import Callable

from eventlog import manifest as manifests
from eventlog import names, tail
from eventlog.columns import EventRow
from eventlog.conflicts import CONFLICT
from eventlog.errors import DataError, NewerFormatError, UsageError
from eventlog.fs import LOCAL, Fs
from eventlog.manifest import Manifest, Watermark
from eventlog.verify import spans
from eventlog.verify.account import Account, Accounted
from eventlog.verify.audit import Audit, Folded
from eventlog.verify.references import Blobs, Reference, references
from eventlog.verify.report import Code, Finding, Note, ProjectReport, Report, total
from eventlog.verify.spans import Spans

_ATTEMPTS = 3


def verify(
    root: str,
    project: str | None = None,
    *,
    fs: Fs = LOCAL,
    blobs: bool = False,
    progress: Callable[[str], None] | None = None,
) -> Report:
    """Return the account of a store: where every record is, and everything that is not as it should be.

    Segments are read by the plain path, record by record, and never by the fast one that folds them; data files
    are read whole, row group by row group. It writes nothing, takes no lock, and may run beside writers and a
    compactor.

    Cost: every byte of segments and data files is read once, the files twice. About one minute for ten million
    records of a few metrics on one core, most of it for the segments. Memory holds one segment, one row group,
    16 bytes for each unbroken range of seqs, and the table of runs.

    Args:
        root: the store's directory.
        project: only this one; default all.
        fs: the file system.
        blobs: also read and hash every blob that a record names; otherwise its size is checked.
        progress: called with the name of each file or writer before it is read.

    Returns:
        The report; `ok` when there is no finding.

    Raises:
        UsageError: there is no such project.
        OSError: something is there but cannot be read.
    """
    found = tail.projects(fs, root)
    if project is not None and project not in found:
        raise UsageError(f"there is no project {project!r} in {root}; there are: {found}")
    wanted = found if project is None else [project]
    return total(root, [_project(fs, root, name, blobs, progress or _ignore) for name in wanted])


def _ignore(what: str) -> None:
    del what


def _project(fs: Fs, root: str, project: str, blobs: bool, progress: Callable[[str], None]) -> ProjectReport:  # noqa: FBT001
    """Verify one project; when a compactor collected files meanwhile, what is newer now is verified instead."""
    for attempt in range(_ATTEMPTS):
        report = _Project(fs, root, project, blobs=blobs).run(progress)
        collected = any(finding.code == "file_missing" for finding in report.findings)
        newest = (manifests.versions(fs, root, project) or [0])[-1]
        if not collected or newest == report.version or attempt == _ATTEMPTS - 1:
            break
    return report


class _Project:
    """The account of one project while it is made."""

    def __init__(self, fs: Fs, root: str, project: str, *, blobs: bool) -> None:
        self._fs = fs
        self._root = root
        self._project = project
        self._findings: list[Finding] = []
        self._notes: list[Note] = []
        self._blobs = Blobs(fs, root, contents=blobs)
        self._counts = dict.fromkeys(
            ("folded", "tail", "gaps", "dropped", "duplicates", "lost", "doubled"),
            0,
        )

    def _say(self, code: Code, where: str, message: str) -> None:
        self._findings.append(Finding(code=code, project=self._project, where=where, message=message))

    def _note(self, where: str, message: str) -> None:
        self._notes.append(Note(project=self._project, where=where, message=message))

    def _add(self, **counts: int) -> None:
        for name, number in counts.items():
            self._counts[name] += number

    def run(self, progress: Callable[[str], None]) -> ProjectReport:
        manifest = self._manifest()
        audit = Audit(self._fs, self._root, manifest, self._say, self._check_blob)
        audit.run(progress)
        listed = tail.writers(self._fs, self._root, self._project)
        writers = sorted({*listed, *manifest.writers, *audit.writers})
        for writer_id in writers:
            progress(f"writer {writer_id}")
            self._account(manifest, audit, writer_id)
        self._report_quarantine(manifest)
        self._report_strangers()
        return ProjectReport(
            **self._counts,
            records=self._counts["folded"] + self._counts["tail"],
            quarantined=len(manifest.quarantined),
            writers=len(writers),
            files=len(manifest.files),
            project=self._project,
            version=manifest.version,
            checksum={table: f"{checksum:016x}" for table, checksum in audit.checksums.items()},
            findings=self._findings,
            notes=self._notes,
        )

    def _report_strangers(self) -> None:
        """A copy of a writer's directory under a name that is no writer_id holds segments that no reader looks at."""
        directory = names.project_segments_dir(self._root, self._project)
        for name in self._fs.subdirs(directory):
            listed = [] if names.is_writer_id(name) else self._fs.names(os.path.join(directory, name))
            found = [item for item in listed if names.parse_segment_name(item)]
            if found:
                where = self._relative(os.path.join(directory, name))
                self._say("misplaced", where, f"{len(found)} segments are in a directory that is no writer's")

    def _manifest(self) -> Manifest:
        """Return the newest intact manifest; every one that is damaged is a finding, older ones too."""
        newest: Manifest | None = None
        for version in reversed(manifests.versions(self._fs, self._root, self._project)):
            try:
                loaded = manifests.load(self._fs, self._root, self._project, version)
            except NewerFormatError as error:
                self._say("newer_format", self._relative(error.path), error.reason)
                if newest is None:
                    return manifests.empty(self._project)
            except DataError as error:
                self._say("manifest_damaged", self._relative(error.path), error.reason)
            except FileNotFoundError:
                continue
            else:
                newest = newest or loaded
        return newest or manifests.empty(self._project)

    def _relative(self, path: str) -> str:
        return os.path.relpath(path, self._root)

    def _check_blob(self, reference: Reference) -> None:
        for code, where, message in self._blobs.check([reference]):
            self._say(code, where, message)

    def _visit(self, rows: list[EventRow]) -> None:
        for row in rows:
            for reference in references(row.kind, row.payload):
                self._check_blob(reference)

    def _account(self, manifest: Manifest, audit: Audit, writer_id: str) -> None:
        mark = manifest.writers.get(writer_id, Watermark())
        gaps = spans.of_ranges((gap.first_seq, gap.last_seq) for gap in manifest.gaps if gap.writer_id == writer_id)
        accounted = Account(
            self._fs,
            self._root,
            self._project,
            writer_id,
            mark=mark,
            gaps=gaps,
            quarantined=manifest.quarantined,
            ends=mark.ends or {},
            say=self._say,
            visit=self._visit,
        ).run()
        folded = audit.writers.get(writer_id, Folded())
        expected = spans.span(1, mark.seq) - gaps
        self._check_folded(writer_id, mark, expected, folded, accounted)
        if folded.present() == expected and not expected - accounted.seen:
            self._check_proof(writer_id, folded, accounted)
        for gap in manifest.gaps:
            if gap.writer_id == writer_id:
                self._report_gap(writer_id, spans.span(gap.first_seq, gap.last_seq), accounted, gap.reason)
        after = spans.span(mark.seq + 1, accounted.reached)
        missing = after - accounted.seen
        if missing:
            self._report_gap(writer_id, missing, accounted, "not in any segment, and not folded")
        self._add(tail=len(after & accounted.seen), duplicates=max(mark.duplicates, accounted.duplicates))
        self._report_rest(writer_id, mark, accounted, audit.recount.dropped.get(writer_id, 0))

    def _check_folded(
        self, writer_id: str, mark: Watermark, expected: Spans, folded: Folded, accounted: Accounted
    ) -> None:
        present = folded.present()
        lost, unexpected = expected - present, present - expected
        doubled, twice = folded.doubled()
        where = f"writer {writer_id}"
        if lost:
            kept = len(lost & accounted.seen)
            text = f"{len(lost)} records are folded and not in the snapshot, {kept} of them are in segments: {lost}"
            self._say("lost", where, text)
        if unexpected:
            text = f"{len(unexpected)} records are in the snapshot, and the watermark and gaps say not: {unexpected}"
            self._say("unexpected", where, text)
        if doubled:
            self._say("doubled", where, f"{doubled} rows are in the snapshot more than once: {twice}")
        if mark.records != len(expected):
            text = f"the watermark counts {mark.records} records, its seq and the gaps make {len(expected)}"
            self._say("watermark_wrong", where, text)
        self._add(folded=len(present), lost=len(lost), doubled=doubled)

    def _check_proof(self, writer_id: str, folded: Folded, accounted: Accounted) -> None:
        """Every folded record is still in a segment, so the rows must be exactly those of the segments."""
        for table, mine in accounted.checksums.items():
            theirs = folded.checksums.get(table, 0)
            if mine != theirs:
                text = f"{table}: its segments have the checksum {mine:016x}, its rows {theirs:016x}"
                self._say("checksum_wrong", f"writer {writer_id}", text)

    def _report_gap(self, writer_id: str, missing: Spans, accounted: Accounted, reason: str) -> None:
        arrived = len(missing & accounted.seen)
        late = f"; {arrived} of them stand in a segment, and came after the gap was recorded" if arrived else ""
        self._say("gap", f"writer {writer_id}", f"{len(missing)} records are missing: {missing} ({reason}){late}")
        self._add(gaps=len(missing))

    def _report_rest(self, writer_id: str, mark: Watermark, accounted: Accounted, folded_dropped: int) -> None:
        where = f"writer {writer_id}"
        if mark.dropped != folded_dropped:
            text = f"the watermark counts {mark.dropped} dropped records, the rows {folded_dropped}"
            self._say("watermark_wrong", where, text)
        dropped = max(mark.dropped, folded_dropped) + accounted.dropped
        if dropped:
            self._say("dropped", where, f"{dropped} records could not be written, and were counted")
        if accounted.duplicates:
            self._note(where, f"{accounted.duplicates} records stand in two segments; each counts once")
        if accounted.torn_bytes:
            self._note(where, f"{accounted.torn_bytes} bytes are a torn tail, which is normal")
        self._add(dropped=dropped)

    def _report_quarantine(self, manifest: Manifest) -> None:
        kept = {entry.name for entry in self._fs.entries(names.quarantine_dir(self._root, self._project))}
        for item in manifest.quarantined:
            text = f"bytes {item.offset} to {item.offset + item.size_bytes} were set aside: {item.reason}"
            if item.name + ".bin" not in kept:
                text += "; the copy is not in the quarantine"
            self._say("conflict" if item.reason.startswith(CONFLICT) else "quarantined", item.source, text)


__all__ = ["Finding", "Note", "ProjectReport", "Report", "verify"]
