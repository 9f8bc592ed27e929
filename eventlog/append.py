"""One open segment: the appending end of a segment file, from its creation to its seal."""

from __future__ import annotations

import contextlib
import errno
import os
from typing import TYPE_CHECKING, Final

from eventlog import frame, names, schema, segment
from eventlog.frame import Outcome
from eventlog.fs import rename_staged, staged, write_all

if TYPE_CHECKING:
    from collections.abc import Sequence

    from eventlog.fs import Fs

SOFTWARE: Final = "eventlog-py 0.1"


class OpenSegment:
    """A segment file that this process created and alone appends to. Not thread-safe: its writer holds a lock.

    Attributes:
        fd: the descriptor, in append mode.
        state: (bytes of complete frames so far, seq of the next record relative to the segment). One tuple, so
            that an exception out of a signal handler can never leave one changed and the other not.
        synced_offset: everything before it is known to be durable.
        shapes: the numbers of the shapes that this segment announced.
        is_broken: it could not be cut back after a failure: nothing may be appended to it any more.
    """

    def __init__(self, fs: Fs, root: str, header: segment.Header, project: str) -> None:
        """Create the file, lock it, and write its header and first frame.

        Raises:
            OSError: the file system refused; no file is left behind that holds a record.
        """
        self._fs = fs
        self._directory = names.writer_dir(root, project, header.writer_id)
        self.path = os.path.join(self._directory, names.segment_name(header.segno, sealed=False))
        self.header = header
        self.state = (0, 0)
        self.synced_offset = 0
        self.shapes: dict[int, schema.Shape] = {}
        self.is_broken = False
        self._last_shape_offset = 0
        fs.make_dirs(self._directory)
        self.fd = fs.create(self.path)
        fs.lock(self.fd)
        start = schema.SegmentStart(
            header.writer_id,
            header.segno,
            header.first_seq,
            header.created_ns,
            project,
            os.uname().nodename,
            os.getpid(),
            boot_id(),
            SOFTWARE,
        )
        try:
            self.write(segment.build_header(header) + frame.build(schema.encode(start), 0, structural=True))
            fs.sync_dir(self._directory)
        except OSError:
            self.close()
            with contextlib.suppress(OSError):
                fs.unlink(self.path)
            raise

    @property
    def offset(self) -> int:
        """Bytes of complete frames so far."""
        return self.state[0]

    @property
    def next_seq(self) -> int:
        """Seq of the next record, relative to the segment."""
        return self.state[1]

    def write(self, data: bytes, records: int = 0) -> None:
        """Append whole frames that hold so many records.

        Raises:
            OSError: not all were appended; those that are whole in the file stay.
        """
        before = self.state
        try:
            write_all(self._fs, self.fd, data)
            self.state = (before[0] + len(data), before[1] + records)
        except OSError:
            if not self.settle(data):
                raise
        except BaseException:
            if self.state == before:
                with contextlib.suppress(OSError):  # it is broken then, and the interrupt goes on
                    self.settle(data)
            raise

    def settle(self, data: bytes) -> bool:
        """After a failure or an interrupt, keep the frames that are whole in the file, and cut it back to the last.

        A reader may have seen them, and may have folded them: their seqs and offsets must not be used again.

        Args:
            data: the frames that were to be written.

        Returns:
            Whether all of them are there.

        Raises:
            OSError: the file cannot be asked or cut back: it is broken, and the next append goes to another segment.
        """
        offset, seq = self.state
        end, records = 0, 0
        try:
            there = self._fs.size(self.path) - offset
            while (found := frame.parse(data, end)).outcome is Outcome.COMPLETE and found.end <= there:
                end, records = found.end, records + (not found.structural)
            self.state = (offset + end, seq + records)
            self._fs.truncate(self.fd, self.offset)
        except BaseException:
            self.is_broken = True
            self.shapes.clear()  # so that no append takes the short way
            raise
        return end == len(data)

    def announce(self, shape: schema.Shape) -> None:
        """Write a shape, twice: a damaged copy must not cost the records that use it.

        Raises:
            OSError: the shape is not announced.
        """
        linked = schema.Shape(shape.shape, shape.run_id, shape.rank, shape.names, self._last_shape_offset)
        data = frame.build(schema.encode(linked), self.next_seq, structural=True)
        before = self.offset
        self.write(data + data)
        self._last_shape_offset = before
        self.shapes[shape.shape] = shape

    def append(self, payload: bytes) -> None:
        """Append one record.

        Raises:
            OSError: it was not appended.
        """
        self.write(frame.build(payload, self.next_seq), 1)

    def append_all(self, payloads: Sequence[bytes]) -> None:
        """Append several records with one write(2): all of them, or, where it is cut short, the first ones.

        Raises:
            OSError: not all were appended; `next_seq` says how many.
        """
        frames = [frame.build(payload, self.next_seq + index) for index, payload in enumerate(payloads)]
        self.write(b"".join(frames), len(frames))

    def sync(self) -> None:
        """Make all frames durable that were complete when the call began.

        Raises:
            OSError: durability is unknown, and the descriptor must not be trusted any more.
        """
        reached = self.offset
        self._fs.sync(self.fd)
        self.synced_offset = max(self.synced_offset, reached)

    def write_seal(self, *, final: bool) -> None:
        """Append the last frame.

        Raises:
            OSError: the segment stays open.
        """
        self.write(self._seal_frame(final=final))

    def _seal_frame(self, *, final: bool) -> bytes:
        record = schema.Seal(self.next_seq, self.header.first_seq + self.next_seq, final)
        return frame.build(schema.encode(record), self.next_seq, structural=True)

    def publish(self) -> str | None:
        """Sync, rename to the sealed name, close; return the sealed path.

        After a power loss the segment may have its open name again, which is whole and durable as well.

        None when another file has that name: the segment keeps its open name.

        Raises:
            OSError: the segment keeps its open name, which loses nothing.
        """
        self.sync()
        sealed = os.path.join(self._directory, names.segment_name(self.header.segno, sealed=True))
        if self._is_there(sealed):
            # Only a copy of this writer, which went on by itself, can have brought it: neither may be lost.
            return None
        self._fs.rename(self.path, sealed)
        self.close()
        return sealed

    def republish(self, *, complete: bool) -> str:
        """After a failed sync the descriptor lies: write all frames again, to a new file under the sealed name.

        The bytes and their offsets stay as they are, so readers in the middle of the segment go on. The open
        name goes last.

        Args:
            complete: the segment ends with its seal frame already.

        Raises:
            OSError: the frames could not be read back, or not be written and synced, or another file has that name;
                nothing has changed.
        """
        data = self._read_back()
        if not complete:
            data += self._seal_frame(final=False)
        name = names.segment_name(self.header.segno, sealed=True)
        sealed = os.path.join(self._directory, name)
        if self._is_there(sealed) and self._fs.read(sealed) != data:
            raise FileExistsError(errno.EEXIST, "holds other records than this writer appended", sealed)
        with staged(self._fs, self._directory, name) as (temporary, fd):
            write_all(self._fs, fd, data)
        rename_staged(self._fs, temporary, sealed)
        self._fs.sync_dir(self._directory)
        with contextlib.suppress(FileNotFoundError):
            self._fs.unlink(self.path)
        self.close()
        return sealed

    def _is_there(self, path: str) -> bool:
        try:
            self._fs.size(path)
        except FileNotFoundError:
            return False
        return True

    def _read_back(self) -> bytes:
        data = self._fs.pread(self.fd, self.offset, 0)
        end = segment.HEADER_BYTES
        for part in segment.walk(data, end, 0):
            if isinstance(part, segment.Damage):
                break
            end = part.end
        if end != self.offset:
            raise OSError(errno.EIO, f"{self.path} cannot be read back beyond byte {end}")
        return data

    def close(self) -> None:
        """Close the descriptor, and with it the lock."""
        if self.fd >= 0:
            self._fs.close(self.fd)
            self.fd = -1


def boot_id() -> str:
    """Return the id of this boot of the machine, or "" where the system tells none."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return ""
