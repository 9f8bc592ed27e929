"""Start a shipper that outlives the job: no child of it, in no group of it, and with none of its files but a lock."""

from __future__ import annotations

import os
import sys
from typing import Final

from eventlog import forks
from eventlog.errors import StorageError
from eventlog.shipper.desk import Desk

_SCRIPT: Final = os.path.join(os.path.dirname(os.path.abspath(__file__)), "detached.py")
_PACKAGES: Final = os.path.dirname(os.path.dirname(os.path.dirname(_SCRIPT)))
START_TIMEOUT_S: Final = 60.0
_LEFT_OUT: Final = ("PYTHONWARNINGS", "PYTHONINSPECT", "PYTHONSTARTUP")
"""What somebody set for the script in front of them, and would end or hold up another process."""
_PATHS: Final = (
    "HF_HOME",
    "HF_HUB_CACHE",
    "HUGGINGFACE_HUB_CACHE",
    "HF_ASSETS_CACHE",
    "HUGGINGFACE_ASSETS_CACHE",
    "HF_XET_CACHE",
    "HF_TOKEN_PATH",
    "XDG_CACHE_HOME",
    "HOME",
    "TMPDIR",
    "NETRC",
    "SSL_CERT_FILE",
    "REQUESTS_CA_BUNDLE",
    "CURL_CA_BUNDLE",
    "PYTHONHOME",
    "PYTHONUSERBASE",
)
_LISTS_OF_PATHS: Final = ("PYTHONPATH", "LD_LIBRARY_PATH", "SSL_CERT_DIR")
"""What names files and directories: relative ones would lead elsewhere from `/`."""


class _Handed:
    """A lock on its way to a shipper; a child that is forked meanwhile must not keep it."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        forks.register(self)

    def close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    become_child = close


def launch(desk: Desk, interval_s: float, timeout_s: float = START_TIMEOUT_S) -> bool:
    """Start a shipper unless one lives; return whether one was started.

    The lock is taken here and handed over, so of many processes that do this at once just one starts just one.

    Args:
        desk: where it meets its jobs.
        interval_s: seconds between two looks at the store.
        timeout_s: how long an interpreter may take to begin.

    Raises:
        StorageError: it cannot be started; the message says why, and where more is told.
    """
    try:
        held = desk.take()
    except OSError as error:
        raise StorageError(error.errno or 0, f"{desk.directory} cannot be used: {error}") from error
    if held is None:
        return False
    handed = _Handed(held)
    try:
        desk.forget()
        _start(desk, held, interval_s, timeout_s)
    except (OSError, RuntimeError) as error:  # the latter when the interpreter is about to end
        number = error.errno if isinstance(error, OSError) else None
        raise StorageError(number or 0, f"no process can be started that ships: {error}") from error
    finally:
        handed.close()
    return True


def _start(desk: Desk, held: int, interval_s: float, timeout_s: float) -> None:
    import subprocess

    if not sys.executable:
        raise FileNotFoundError("sys.executable does not say where Python is")
    log = desk.open_log()
    try:
        done = subprocess.run(  # noqa: S603 - our own program
            # -P: nothing is imported from beside the script that is run, nor from the current directory.
            [sys.executable, "-P", _SCRIPT, _PACKAGES, str(held), desk.root, desk.bucket, repr(float(interval_s))],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd="/",
            env=_environment(),
            pass_fds=(held,),
            start_new_session=True,
            timeout=timeout_s,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise TimeoutError(f"it has not begun within {timeout_s:.1f} s") from error
    finally:
        os.close(log)
    if done.returncode:
        raise ChildProcessError(f"it ended with {done.returncode}; {desk.log_path} says why")


def _environment() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name not in _LEFT_OUT}
    for name in _PATHS:
        if kept.get(name):
            kept[name] = _absolute(kept[name])
    for name in _LISTS_OF_PATHS:
        if kept.get(name):
            kept[name] = os.pathsep.join(map(os.path.abspath, kept[name].split(os.pathsep)))
    return {"HF_HUB_VERBOSITY": "error", **kept, "HF_HUB_DISABLE_PROGRESS_BARS": "1"}


def _absolute(path: str) -> str:
    """Return where a path leads from here, unless the Hub's client expands it, to what is no matter of where we are."""
    return path if path.startswith(("~", "$")) else os.path.abspath(path)
