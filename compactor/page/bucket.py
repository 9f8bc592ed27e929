"""A page's bucket: what anybody's browser reads."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from compactor.page.layout import ARTIFACTS, MEDIA
from compactor.page.target import There
from eventlog.errors import UsageError
from eventlog.hub.bucket import Bucket, hash_of, in_parts


class PageBucket:
    """A page in a bucket of the Hub; one that is not there is made, for everybody to read."""

    def __init__(self, bucket: Bucket) -> None:
        """Take the bucket.

        Raises:
            UsageError: the address has a directory in the bucket, where the page does not look.
        """
        if bucket.address.prefix:
            raise UsageError(
                f"a page reads its bucket as a whole: give {bucket.address.bucket} without {bucket.address.prefix}"
            )
        self._bucket = bucket

    def __str__(self) -> str:
        """Return the address."""
        return str(self._bucket)

    def prepare(self) -> None:
        """Make the bucket unless it is there.

        Raises:
            UsageError: it is private, so that the page would see nothing of it.
            StorageError: the Hub refused or could not be reached.
        """
        private = self._bucket.is_private()
        if private:
            raise UsageError(
                f"the bucket {self._bucket.address.bucket} is private, and a page reads it without any token: make it "
                "public in its settings on the Hub, or name another one"
            )
        if private is None:
            self._bucket.create(private=False)

    def is_empty(self) -> bool:
        """Say whether the bucket holds nothing."""
        return not self._bucket.files("")

    def read(self, path: str) -> bytes | None:
        """Return a small file, or None."""
        found = self._bucket.info([path])
        return self._bucket.read(found[path]) if path in found else None

    def there(self, paths: Collection[str]) -> dict[str, There]:
        """Return those of these files that are there: the truth, not the listing."""
        return {
            path: There(remote.size_bytes, remote.xet_hash)
            for part in in_parts(sorted(paths))
            for path, remote in self._bucket.info(part).items()
        }

    def media(self) -> list[str]:
        """Return the paths of all media and artifacts, as the listing has them."""
        return [file.path for under in (MEDIA, ARTIFACTS) for file in self._bucket.files(under.rstrip("/"))]

    def hashes(self, local: Sequence[str]) -> list[str]:
        """Return the hashes by which the Hub names the bytes of local files."""
        return hash_of(local)

    def add(self, files: Sequence[tuple[str, str]]) -> None:
        """Upload files; when this raises, any of them may be there, each whole.

        Raises:
            StorageError: the Hub refused or could not be reached.
        """
        self._bucket.upload(files)

    def delete(self, paths: Sequence[str]) -> None:
        """Delete files; those that are not there count as deleted.

        Raises:
            StorageError: the Hub refused or could not be reached.
        """
        self._bucket.delete(paths)
