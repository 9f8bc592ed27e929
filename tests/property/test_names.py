"""Every name that is built is parsed back to what it was built from, and nothing else is taken for one."""

import contextlib
import os

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from eventlog import names
from eventlog.errors import UsageError
from eventlog.testing import strategies

MODULE_COVERS = {
    "encode_name", "decode_name", "segment_name", "parse_segment_name", "manifest_name", "parse_manifest_name",
    "data_file_name", "is_data_file_name", "data_file_path", "parse_data_file_path", "new_id", "is_writer_id",
    "temporary_name", "is_temporary", "blob_path", "blobs_dir", "is_digest", "quarantine_name",
    "segments_dir", "project_segments_dir", "writer_dir", "snapshots_dir", "snapshot_dir", "manifests_dir",
    "manifest_path", "quarantine_dir", "index_dir", "incoming_dir", "imports_dir", "restoring_dir",
    "bucket_state_path", "is_quarantine_file", "hub_dir", "restoring_mark", "held_dir", "held_name", "is_held",
    "held_number",
}  # fmt: skip


MODULE_COVERS |= {"hub_dir", "restoring_mark", "shipper_dir", "ask_name", "is_ask"}


def encoded_or_none(name: str) -> str | None:
    try:
        return names.encode_name(name)
    except UsageError:
        return None


def test_every_public_function_of_names_is_covered_here():
    public = {
        name
        for name, value in vars(names).items()
        if callable(value) and not name.startswith("_") and getattr(value, "__module__", "") == "eventlog.names"
    }
    assert public == MODULE_COVERS


@given(strategies.project_names())
@example("\ud800")
def test_a_project_name_is_read_back_or_refused_when_it_is_built(name):
    encoded = encoded_or_none(name)
    if encoded is not None:
        assert names.decode_name(encoded) == name


@given(strategies.project_names())
def test_an_encoded_project_name_is_one_inert_path_component(name):
    check_inert(name)


@pytest.mark.parametrize("name", strategies.HOSTILE_NAMES)
def test_a_hostile_project_name_is_read_back_and_inert(name):
    encoded = encoded_or_none(name)
    assert encoded is None or names.decode_name(encoded) == name
    assert (encoded is None) == (name in ("", "x" * 201, "é" * 67))
    check_inert(name)


def check_inert(name: str) -> None:
    encoded = encoded_or_none(name)
    if encoded is None:
        return
    assert encoded.isascii()
    assert encoded.isprintable()
    assert not set(encoded) & set('/\\:*?"<>| ')
    assert not encoded.startswith(".")
    assert not encoded.endswith(".")
    assert 0 < len(encoded) <= 200
    for path in (
        names.project_segments_dir("/s", name),
        names.snapshot_dir("/s", name),
        names.quarantine_dir("/s", name),
        names.index_dir("/s", name),
        names.restoring_dir("/s", name),
    ):
        assert os.path.normpath(path) == path
        assert os.path.basename(path) == encoded
    assert names.manifests_dir("/s", name).startswith(names.snapshot_dir("/s", name) + "/")


@given(strategies.project_names(), strategies.project_names())
def test_two_projects_never_share_a_directory(one, other):
    assume(one != other)
    first, second = encoded_or_none(one), encoded_or_none(other)
    assert first is None or first != second


@given(st.text(max_size=30) | strategies.project_names())
def test_a_directory_that_was_not_encoded_from_a_name_is_no_project(text):
    decoded = names.decode_name(text)
    assert decoded is None or names.encode_name(decoded) == text


@given(st.integers(0, 99_999_999), st.booleans())
def test_a_segment_name_is_read_back(segno, sealed):
    assert names.parse_segment_name(names.segment_name(segno, sealed=sealed)) == (segno, sealed)


@given(st.integers(0, 10**12 - 1))
def test_a_manifest_name_is_read_back(version):
    assert names.parse_manifest_name(names.manifest_name(version)) == version
    assert names.parse_manifest_name(os.path.basename(names.manifest_path("/s", "p", version))) == version


@given(st.integers(0, 99_999_998), st.integers(0, 10**12 - 2))
def test_names_sort_as_their_numbers(segno, version):
    assert names.segment_name(segno, sealed=True) < names.segment_name(segno + 1, sealed=True)
    assert names.manifest_name(version) < names.manifest_name(version + 1)


@given(st.sampled_from(names.TABLES), st.integers(0, 10**12 - 1))
def test_a_data_file_path_is_read_back(table, version):
    name = names.data_file_name(version)
    assert names.is_data_file_name(name)
    assert names.parse_data_file_path(names.data_file_path(table, name)) == (table, name)


@given(
    st.text(max_size=40) | st.sampled_from(["data/../x", "/etc/passwd", "data/metrics/../../x", "data/runs/a.parquet"])
)
def test_no_other_path_is_taken_for_a_data_file(path):
    parsed = names.parse_data_file_path(path)
    assert parsed is None or names.data_file_path(*parsed) == path


@given(st.integers(0, 2**48 - 1), st.integers(0, 2**48 - 1))
def test_ids_are_writer_ids_that_sort_by_time(one, other):
    assume(one != other)
    first, second = names.new_id(one), names.new_id(other)
    assert names.is_writer_id(first)
    assert (first < second) == (one < other)
    assert names.writer_dir("/s", "p", first).endswith("/" + first)


@given(st.text(max_size=30))
def test_a_text_is_either_a_finished_name_or_a_temporary_one_or_neither(text):
    temporary = names.temporary_name("000000000001.json")
    assert names.is_temporary(temporary)
    for parse in (names.parse_manifest_name, names.parse_segment_name):
        assert parse(temporary) is None
        parsed = parse(text)
        assert parsed is None or not names.is_temporary(text)
    assert not names.is_data_file_name(temporary)
    assert not names.is_writer_id(temporary)


@given(st.text(max_size=40))
def test_only_what_asks_for_a_shipment_has_such_a_name(text):
    ask = names.ask_name()
    assert names.is_ask(ask)
    assert not names.is_ask(text) or len(text) == len(ask)
    assert not names.is_temporary(ask)
    assert not names.is_ask(names.temporary_name(ask))


def test_a_shipper_has_a_place_of_its_own_beside_what_a_publisher_remembers():
    in_hub = {names.bucket_state_path("/s", "b"), names.shipper_dir("/s", "b"), names.restoring_mark("/s")}
    assert {os.path.dirname(path) for path in in_hub} == {names.hub_dir("/s")}
    assert len(in_hub) == 3


@given(st.binary(min_size=32, max_size=32), st.text(max_size=64))
def test_only_a_digest_becomes_a_blob_path(raw, text):
    digest = raw.hex()
    assert names.is_digest(digest)
    assert names.blob_path("/s", digest).endswith(f"/{digest[:2]}/{digest}")
    if not names.is_digest(text):
        with pytest.raises(UsageError):
            names.blob_path("/s", text)


@given(
    st.tuples(st.integers(0, 99), st.integers(0, 9999), st.integers(0, 9999)),
    st.tuples(st.integers(0, 99), st.integers(0, 9999), st.integers(0, 9999)),
)
def test_two_damaged_ranges_never_share_a_quarantine_name(one, other):
    writer_id = names.new_id(0)
    name = names.quarantine_name(writer_id, *one)
    assert (name == names.quarantine_name(writer_id, *other)) == (one == other)
    assert names.is_quarantine_file(f"{name}.bin")
    assert not names.is_quarantine_file(name)


def test_directories_of_a_store_are_apart():
    with contextlib.suppress(UsageError):
        names.encode_name("")
    of_projects = (names.index_dir, names.quarantine_dir, names.restoring_dir)
    directories = [os.path.dirname(build("/s", "p")) for build in of_projects]
    directories += [names.incoming_dir("/s"), names.imports_dir("/s"), names.segments_dir("/s")]
    directories += [names.snapshots_dir("/s"), names.hub_dir("/s"), names.held_dir("/s")]
    assert len(set(directories)) == len(directories)
    private = {names.hub_dir("/s")}
    assert {
        os.path.dirname(path) for path in (names.bucket_state_path("/s", "b"), names.restoring_mark("/s"))
    } == private


@given(st.integers(1, 10**12 - 1), st.integers(1, 10**12 - 1))
def test_calls_that_wait_sort_by_their_numbers_and_are_told_from_all_other_names(one, other):
    first, second = names.held_name(one), names.held_name(other)
    assert (names.held_number(first), names.is_held(first)) == (one, True)
    assert (first < second) == (one < other) or one == other
    assert names.held_name(one) != first
    for name in (first + ".refused", names.temporary_name(first), "x" + first, names.manifest_name(one)):
        assert (names.is_held(name), names.held_number(name)) == (False, 0)
