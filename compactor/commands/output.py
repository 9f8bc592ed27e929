"""What the services of `compactor` say on stderr."""

from __future__ import annotations

import logging
import os
import sys
from typing import NoReturn


def log_to_stderr() -> None:
    """Log what the services do and what fails to stderr, and of others only warnings."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr)
    for name in ("watchfiles", "httpx", "httpx2", "huggingface_hub"):
        logging.getLogger(name).setLevel(logging.WARNING)


def end(code: int) -> NoReturn:
    """End this process, although answers are still being made in its threads: nobody waits for them any more.

    Python would wait for them, and an answer may take a minute; what was taken is durable.
    """
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
