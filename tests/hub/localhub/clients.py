"""The unmodified client inside a test's process: fresh caches, short waits, and nothing of the machine's owner."""

from __future__ import annotations

import contextlib
import os
import tempfile
import time
import types
from collections.abc import Callable, Iterator

import pytest
import tenacity

_WAIT_SECONDS = 0.01


def fresh_client() -> None:
    """Forget all that the client has cached: connections, xet tokens, and which chunks it has uploaded."""
    from huggingface_hub.utils import _http, _xet

    _http.close_session()
    _xet.abort_xet_session()
    _xet.XET_CONNECTION_INFO_CACHE.clear()
    if "LOCALHUB_HOMES" in os.environ:
        os.environ["HF_XET_CACHE"] = tempfile.mkdtemp(dir=os.environ["LOCALHUB_HOMES"])


@contextlib.contextmanager
def isolated_client(home: str, hub_answers: Callable[[], bool]) -> Iterator[None]:
    """Let the client of this process keep its caches in a directory, and wait 10 ms where it would wait for seconds.

    Only what it waits between tries is changed: how often, after what and how it tries again is its own. While the Hub
    is down it waits on, up to what it would have waited, so that a Hub that is being restarted is met again.
    """
    from huggingface_hub import constants
    from huggingface_hub.utils import _http, are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    def sleep(seconds: float) -> None:
        time.sleep(_WAIT_SECONDS)
        until = time.monotonic() + seconds
        while not hub_answers() and time.monotonic() < until:
            time.sleep(_WAIT_SECONDS)

    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith(("HF_", "HUGGING"))]:
            patch.delenv(name)
        patch.setenv("LOCALHUB_HOMES", home)
        patch.setenv("HF_HOME", home)
        patch.setenv("HF_XET_CACHE", home)
        patch.setenv("HF_XET_TELEMETRY_ENABLED", "0")
        patch.setenv("HF_XET_CLIENT_RETRY_BASE_DELAY", "10ms")
        # Read when it was imported, perhaps by a test that goes without a Hub.
        patch.setattr(constants, "HF_HUB_OFFLINE", False)
        patch.setattr(_http, "time", types.SimpleNamespace(sleep=sleep))
        patch.setattr(tenacity.nap, "time", types.SimpleNamespace(sleep=sleep))
        shown = not are_progress_bars_disabled()
        disable_progress_bars()
        fresh_client()
        yield
        fresh_client()
        if shown:
            enable_progress_bars()
