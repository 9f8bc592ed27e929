"""What the services of `compactor` say on stderr."""

from __future__ import annotations

import logging
import sys


def log_to_stderr() -> None:
    """Log what the services do and what fails to stderr, and of others only warnings."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr)
    for name in ("watchfiles", "httpx", "httpx2", "huggingface_hub"):
        logging.getLogger(name).setLevel(logging.WARNING)
