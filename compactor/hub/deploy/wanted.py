"""What is to be deployed: frozen facts that were checked once, of which secrets never show."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final, Literal

from eventlog.errors import UsageError, shown
from eventlog.hub.address import BucketAddress

Mode = Literal["docker", "static"]
WRITE_TOKEN: Final = "TRACKIO_WRITE_TOKEN"  # noqa: S105 - the name of it
BUCKET_TOKEN: Final = "HF_TOKEN"  # noqa: S105 - the name of it
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}/[A-Za-z0-9][A-Za-z0-9._-]{0,95}")
_HARDWARE: Final = re.compile(r"[a-z0-9][a-z0-9-]*")
_TOKEN: Final = re.compile(r"[!-~]+")
_WHEEL: Final = re.compile(r"eventlog-[A-Za-z0-9._+!]+-py3-none-any\.whl")


@dataclass(frozen=True, slots=True)
class Secret:
    """A secret of a Space: only who asks for the value sees it."""

    key: str
    value: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class File:
    """A file of a Space's repository."""

    path: str
    data: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Package:
    """What a Docker Space installs.

    Attributes:
        version: of this package, from the package index, when there is no wheel.
        dashboard: the version of Trackio whose dashboard it shows.
        wheel: a built wheel of this package, which is installed instead.
    """

    version: str
    dashboard: str
    wheel: File | None = None

    def __post_init__(self) -> None:
        """Check the name of the wheel.

        Raises:
            UsageError: no such wheel can be installed.
        """
        if self.wheel is not None and not _WHEEL.fullmatch(self.wheel.path):
            raise UsageError(f"{self.wheel.path} is no wheel of this package: eventlog-VERSION-py3-none-any.whl")


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """A Space as it is wanted.

    Attributes:
        space: OWNER/NAME.
        mode: "docker" for a server, "static" for a page that reads the bucket.
        bucket: where the store, or the page's data, lives.
        private: the Space is seen by its owner only.
        hardware: the flavour that is paid for; None leaves it as it is.
        package: what a Docker Space installs.
        write_token: what clients will have to send; goes only into a Space that has none, or with `new_token`.
        new_token: replace the Space's write token.
        ack: "bucket" for a server that answers a write only when the bucket has it.
        bucket_token: what the Space opens the bucket with; None where it has one.
        project: which project a static page shows.
        page: the files of the static page.
        page_version: the version of Trackio that they are of.
    """

    space: str
    mode: Mode
    bucket: BucketAddress
    private: bool = False
    hardware: str | None = None
    package: Package | None = None
    write_token: str = field(default="", repr=False)
    new_token: bool = False
    ack: Literal["disk", "bucket"] = "disk"
    bucket_token: str | None = field(default=None, repr=False)
    project: str | None = None
    page: tuple[File, ...] = ()
    page_version: str = ""

    def __post_init__(self) -> None:
        """Check what does not fit together.

        Raises:
            UsageError: says what, and what to do instead.
        """
        if not _NAME.fullmatch(self.space):
            raise UsageError(f"a Space is OWNER/NAME, not {shown(self.space)}")
        if self.hardware is not None and not _HARDWARE.fullmatch(self.hardware):
            raise UsageError(f"hardware is a flavour such as cpu-basic or cpu-upgrade, not {shown(self.hardware)}")
        if self.bucket_token is not None and not _TOKEN.fullmatch(self.bucket_token):
            raise UsageError("the bucket token is none: a token of the Hub is ASCII without spaces, such as hf_...")
        if self.mode == "static":
            self._check_static()
        elif self.package is None or not self.write_token:
            raise UsageError("a Docker Space needs a package to install and a write token")
        elif self.project is not None:
            raise UsageError("--project goes with --mode static: a server shows every project")

    def _check_static(self) -> None:
        if not self.project:
            raise UsageError("a static page shows one project: name it with --project")
        if self.private:
            raise UsageError(
                "a static page cannot be private: the browser reads the bucket without any token, so the bucket is "
                "public; leave out --private, or take --mode docker"
            )
        if self.bucket.prefix:
            raise UsageError(
                f"a static page reads the bucket as a whole: give {self.bucket.bucket} without {self.bucket.prefix}"
            )
        for given, option in (
            (self.hardware, "--hardware"),
            (self.bucket_token, "--bucket-token"),
            (self.package, "--wheel"),
            (self.new_token, "--new-token"),
            (self.ack == "bucket", "--ack bucket"),
        ):
            if given:
                raise UsageError(f"{option} goes with --mode docker: a static page runs nothing")

    @property
    def page_url(self) -> str:
        """Where people find the Space."""
        return f"https://huggingface.co/spaces/{self.space}"
