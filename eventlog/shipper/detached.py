"""What a shipper's process runs first: it leaves the job that started it, then imports what it needs, and ships.

It is run by its path, so that the job waits for no more than the start of an interpreter.
"""

import os
import sys


def main() -> None:
    """Go on as a process without a parent that has to wait for it."""
    if os.fork():
        os._exit(0)
    packages, held, root, bucket, interval_s = sys.argv[1:]
    sys.path.append(packages)
    from eventlog.shipper.process import Shipper

    Shipper(root, bucket, held=int(held), interval_s=float(interval_s)).run()


if __name__ == "__main__":
    main()
