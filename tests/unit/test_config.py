"""Settings: ranges are checked, the environment is read as documented, and mistakes name themselves."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from eventlog.config import WriterConfig, read_environment
from eventlog.errors import UsageError


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("sync_interval_s", 0),
        ("sync_interval_s", -1),
        ("sync_interval_s", float("nan")),
        ("segment_bytes", 4095),
        ("roll_interval_s", 0),
        ("inline_bytes", 255),
    ],
)
def test_a_value_out_of_its_range_is_refused_by_name(field: str, value: Any):
    with pytest.raises(UsageError, match=field):
        WriterConfig(**{field: value})


def test_the_smallest_values_are_accepted():
    WriterConfig(sync_interval_s=1e-3, segment_bytes=4096, roll_interval_s=1e-3, inline_bytes=256)
    assert WriterConfig(sync_interval_s=None).sync_interval_s is None


def test_settings_cannot_be_changed():
    with pytest.raises(AttributeError):
        WriterConfig().segment_bytes = 1  # type: ignore[misc]


def test_every_setting_is_documented_with_its_default():
    text = WriterConfig.__doc__ or ""
    for field in msgspec.structs.fields(WriterConfig):
        assert f"\n        {field.name}:" in text


def test_an_empty_environment_gives_the_defaults():
    read = read_environment({})
    assert (read.store_dir, read.project, read.run_id, read.name) == ("./eventlog-store", None, None, None)
    assert (read.rank, read.world_size, read.writer) == (None, None, WriterConfig())
    assert read_environment({"EVENTLOG_DIR": "", "EVENTLOG_PROJECT": "", "EVENTLOG_ON_ERROR": ""}) == read


def test_the_environment_says_everything():
    read = read_environment(
        {
            "EVENTLOG_DIR": "/store",
            "EVENTLOG_PROJECT": "p",
            "EVENTLOG_RUN_ID": "id",
            "EVENTLOG_RUN_NAME": "name",
            "EVENTLOG_SYNC_INTERVAL_S": "2.5",
            "EVENTLOG_ON_ERROR": "raise",
            "EVENTLOG_NETWORK_MOUNT": "refuse",
            "EVENTLOG_SPOOL_DIR": "/spool",
            "RANK": "3",
            "WORLD_SIZE": "8",
        }
    )
    assert (read.store_dir, read.project, read.run_id, read.name) == ("/store", "p", "id", "name")
    assert (read.rank, read.world_size) == (3, 8)
    assert read.writer == WriterConfig(
        sync_interval_s=2.5, on_error="raise", network_mount="refuse", spool_dir="/spool"
    )


@pytest.mark.parametrize("text", ["off", "OFF", "Off"])
def test_syncing_can_be_turned_off(text: str):
    assert read_environment({"EVENTLOG_SYNC_INTERVAL_S": text}).writer.sync_interval_s is None


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("EVENTLOG_SYNC_INTERVAL_S", "soon"),
        ("EVENTLOG_SYNC_INTERVAL_S", "0"),
        ("EVENTLOG_ON_ERROR", "ignore"),
        ("EVENTLOG_NETWORK_MOUNT", "yes"),
    ],
)
def test_a_bad_variable_is_refused(variable: str, value: str):
    with pytest.raises(UsageError):
        read_environment({variable: value})


def test_the_first_launcher_that_says_a_rank_counts():
    assert read_environment({"SLURM_PROCID": "2", "OMPI_COMM_WORLD_RANK": "3"}).rank == 2
    assert read_environment({"RANK": "x", "SLURM_PROCID": "2"}).rank == 2
    assert read_environment({"RANK": "-1"}).rank is None
    assert read_environment({"RANK": "²"}).rank is None
    assert read_environment({"SLURM_NTASKS": "4", "OMPI_COMM_WORLD_SIZE": "5"}).world_size == 4
