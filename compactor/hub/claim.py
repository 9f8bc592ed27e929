"""Put a manifest in place that no fold or merge made: a claim to a bucket, or a snapshot that a bucket held."""

from __future__ import annotations

import time
from collections.abc import Callable

import msgspec

from eventlog import manifest as manifests
from eventlog import names
from eventlog.fs import Fs
from eventlog.manifest import Manifest, Publisher


def claim(
    fs: Fs,
    root: str,
    project: str,
    publisher: Publisher,
    *,
    above: int,
    time_ns: Callable[[], int] = time.time_ns,
) -> Manifest:
    """Write into a new manifest who publishes from now on; durable when this returns. The data stay as they are.

    Args:
        fs: the file system.
        root: the store.
        project: its name.
        publisher: this store, and its epoch.
        above: a version that the new one must exceed: the newest in the bucket.
        time_ns: the clock.

    Raises:
        DataError: there are manifests, and none is intact.
        OSError: as the file system raises it.
    """
    fs.make_dirs(names.manifests_dir(root, project))
    while True:
        parent, _ = manifests.load_newest(fs, root, project)
        child = following(fs, root, parent, above, "claim", time_ns(), publisher)
        if manifests.publish(fs, root, child):
            return child


def following(
    fs: Fs,
    root: str,
    held: Manifest,
    above: int,
    action: str,
    now_ns: int,
    publisher: Publisher | msgspec.UnsetType,
) -> Manifest:
    """Return a manifest of what one held, under the next version that is free here and in the bucket."""
    highest = manifests.newest_version(fs, root, held.project)
    return msgspec.structs.replace(
        held,
        version=max(highest, above, held.version) + 1,
        parent=held.version,
        created_ns=max(now_ns, held.created_ns),
        committer=manifests.committer(),
        action=action,
        publisher=publisher,
    )
