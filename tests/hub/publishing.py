"""A process that logs, folds, compacts, publishes and collects in a bucket, round after round, until it has done all.

`python publishing.py STORE OWNER/NAME ROUNDS`. Run number n logs `STEPS` steps and is whole in each snapshot. Those of
odd numbers are published before they are folded, too: from segments a reader may see the first part of them.
"""

from __future__ import annotations

import sys

from bucketcases import fold, log

from compactor.hub.plan import Limits
from compactor.hub.publish import BucketPublisher
from eventlog.fs import LOCAL
from eventlog.hub.address import BucketAddress
from eventlog.hub.bucket import Bucket

STEPS = 150


def main(root: str, bucket: str, rounds: int) -> None:
    publisher = BucketPublisher(LOCAL, root, Bucket(BucketAddress(bucket)), Limits(wave_files=2, grace_ns=0))
    for number in range(rounds):
        log(root, f"{number:03d}", STEPS)
        if number % 2:
            publisher.publish("p")
        fold(root)
        publisher.publish("p")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
