"""Names: what is built is parsed back, sorts, and leads nowhere else."""

from __future__ import annotations

import os

import pytest

from eventlog import names
from eventlog.errors import UsageError

DIGEST = "0123456789abcdef" * 4


@pytest.mark.parametrize(
    "project",
    [
        "demo",
        "A b",
        "ü/ö",
        "..",
        ".",
        ".hidden",
        "end.",
        "a.b",
        "100%",
        "%41",
        "con",
        "Con.txt",
        "COM1",
        "COMX",
        "\0\n",
        "🙂" * 10,
    ],
)
def test_project_names_come_back_and_are_inert(project: str):
    encoded = names.encode_name(project)
    assert names.decode_name(encoded) == project
    assert "/" not in encoded
    assert encoded.isascii()
    assert not encoded.startswith(".")
    assert not encoded.endswith(".")


def test_windows_device_names_are_never_directory_names():
    for name in ("con", "NUL", "aux.log", "lpt9"):
        assert names.encode_name(name).startswith("%")
    assert names.encode_name("console") == "console"


def test_different_projects_have_different_directories():
    projects = ["a b", "a%20b", "a%2520b", "a", "%61", ".a", "%2Ea"]
    assert len({names.encode_name(project) for project in projects}) == len(projects)


@pytest.mark.parametrize("project", ["", "\ud800", "x" * 201, "ü" * 40, None, 3])
def test_impossible_project_names_are_refused(project: object):
    with pytest.raises(UsageError):
        names.encode_name(project)  # type: ignore[arg-type]


def test_a_name_of_200_bytes_fits_a_file_system(tmp_path: object):
    os.mkdir(os.path.join(str(tmp_path), names.encode_name("x" * 200)))


@pytest.mark.parametrize("foreign", ["a b", "%zz", "%6", "%41", "..", "%ff", "ü", "", ".a"])
def test_directories_that_were_not_encoded_are_no_projects(foreign: str):
    assert names.decode_name(foreign) is None


def test_ids_sort_by_their_time_and_are_distinct():
    times = [0, 1, 1_700_000_000_000, 1_700_000_000_001, (1 << 48) - 1]
    made = [names.new_id(time_ms) for time_ms in times]
    assert sorted(made) == made
    assert all(names.is_writer_id(one) for one in made)
    assert len({names.new_id(5) for _ in range(1000)}) == 1000


@pytest.mark.parametrize("text", ["", "x", "0" * 25, "0" * 27, "0" * 25 + "I", "0" * 25 + "u", "0" * 26 + "\n"])
def test_other_texts_are_no_writer_ids(text: str):
    assert not names.is_writer_id(text)


def test_segment_names_come_back_and_sort():
    built = [names.segment_name(n, sealed=sealed) for n in (1, 2, 10, 99_999_999) for sealed in (False, True)]
    assert sorted(built) == built
    assert [names.parse_segment_name(name) for name in built] == [
        (n, sealed) for n in (1, 2, 10, 99_999_999) for sealed in (False, True)
    ]


@pytest.mark.parametrize(
    "name", ["1.seg", "00000001.tmp", "00000001.seg~", "00000001.segs", ".00000001.seg", "00000001"]
)
def test_other_files_are_no_segments(name: str):
    assert names.parse_segment_name(name) is None


def test_manifest_names_come_back_and_sort():
    built = [names.manifest_name(version) for version in (1, 9, 10, 10**11)]
    assert sorted(built) == built
    assert [names.parse_manifest_name(name) for name in built] == [1, 9, 10, 10**11]
    assert names.parse_manifest_name("1.json") is None
    assert names.parse_manifest_name("000000000001.json.tmp") is None


def test_data_file_names_are_never_used_twice():
    made = {names.data_file_name(3) for _ in range(1000)}
    assert len(made) == 1000
    assert all(names.is_data_file_name(name) for name in made)


@pytest.mark.parametrize("table", names.TABLES)
def test_data_file_paths_come_back(table: str):
    name = names.data_file_name(1)
    assert names.parse_data_file_path(names.data_file_path(table, name)) == (table, name)


@pytest.mark.parametrize(
    "path",
    [
        "data/metrics/../../../etc/passwd",
        "/etc/passwd",
        "data/other/000000000001-0123456789abcdef.parquet",
        "data/metrics/x.parquet",
        "data//000000000001-0123456789abcdef.parquet",
        "../data/metrics/000000000001-0123456789abcdef.parquet",
        "data/metrics/sub/000000000001-0123456789abcdef.parquet",
        "",
    ],
)
def test_paths_that_lead_elsewhere_are_no_data_files(path: str):
    assert names.parse_data_file_path(path) is None


def test_temporary_names_are_told_from_finished_ones():
    made = names.temporary_name("x")
    assert names.is_temporary(made)
    assert made != names.temporary_name("x")
    assert not names.is_temporary("x")
    assert names.parse_segment_name(made) is None


@pytest.mark.parametrize("digest", ["", "../" + DIGEST[3:], DIGEST.upper(), DIGEST[:-1], DIGEST + "\n"])
def test_blobs_have_paths_for_digests_only(digest: str):
    with pytest.raises(UsageError):
        names.blob_path("root", digest)


def test_paths_of_a_store():
    writer_id = "0" * 26
    assert names.writer_dir("r", "a b", writer_id) == f"r/segments/a%20b/{writer_id}"
    assert names.project_segments_dir("r", "p") == "r/segments/p"
    assert names.blob_path("r", DIGEST) == f"r/blobs/sha256/01/{DIGEST}"
    assert names.manifest_path("r", "p", 7) == "r/snapshots/p/manifests/000000000007.json"
    assert names.quarantine_dir("r", "p") == "r/quarantine/p"
    assert names.quarantine_name(writer_id, 1, 2, 3) == f"{writer_id}-00000001-2-3"
