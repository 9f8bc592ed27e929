"""The calls that the server answers: their names, their arguments, and which of them write."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, NamedTuple

import msgspec

from compactor.serve import catalog, points, reads, sql, traces, writes
from compactor.serve.errors import RequestError
from compactor.serve.hub import Hub
from compactor.serve.wire import bind


class Endpoint(NamedTuple):
    """One call.

    Attributes:
        form: its arguments.
        answer: what answers it.
        writes: it needs the write token.
    """

    form: type[msgspec.Struct]
    answer: Callable[[Hub, Any], Any]
    writes: bool = False

    def call(self, hub: Hub, args: list[Any], kwargs: dict[str, Any]) -> Any:
        """Check the arguments and answer.

        Raises:
            RequestError: a bad argument, or as the call says.
        """
        try:
            return self.answer(hub, bind(self.form, args, kwargs))
        except RecursionError:
            raise RequestError("nested too deeply") from None


def get_settings(hub: Hub, call: writes.Nothing) -> dict[str, Any]:
    """Return how the dashboard looks."""
    del hub, call
    return {
        "logo_urls": {
            "light": "/static/trackio/trackio_logo_type_light_transparent.png",
            "dark": "/static/trackio/trackio_logo_type_dark_transparent.png",
        },
        "color_palette": ["#2F7ED8", "#E8743B", "#19A979", "#ED4A7B", "#945ECF", "#13A4B4", "#BF8B00", "#6C8893"],
        "plot_order": [],
        "table_truncate_length": 250,
        "media_dir": "media",
        "space_id": None,
    }


def get_registries(hub: Hub, call: writes.Nothing) -> list[Any]:
    """Return no registries: a store has none."""
    del hub, call
    return []


def get_registry_buckets(hub: Hub, call: writes.Nothing) -> dict[str, Any]:
    """Return no buckets: a store has none."""
    del hub, call
    return {"buckets": [], "default_bucket_id": None}


ENDPOINTS: Final[dict[str, Endpoint]] = {
    "get_all_projects": Endpoint(writes.Nothing, reads.get_all_projects),
    "get_runs_for_project": Endpoint(reads.OfProject, reads.get_runs_for_project),
    "get_run_configs": Endpoint(reads.OfProject, reads.get_run_configs),
    "get_project_summary": Endpoint(reads.OfProject, reads.get_project_summary),
    "get_run_summary": Endpoint(reads.OfRun, reads.get_run_summary),
    "get_metrics_for_run": Endpoint(reads.OfRun, reads.get_metrics_for_run),
    "get_system_metrics_for_run": Endpoint(reads.OfRun, reads.get_system_metrics_for_run),
    "get_logs": Endpoint(reads.Logs, reads.get_logs),
    "get_logs_batch": Endpoint(reads.LogsBatch, reads.get_logs_batch),
    "get_system_logs": Endpoint(reads.OfRun, reads.get_system_logs),
    "get_system_logs_batch": Endpoint(reads.LogsBatch, reads.get_system_logs_batch),
    "get_alerts": Endpoint(reads.Alerts, reads.get_alerts),
    "get_tab_availability": Endpoint(reads.OfProject, reads.get_tab_availability),
    "get_project_files": Endpoint(reads.OfProject, reads.get_project_files),
    "get_metric_values": Endpoint(points.MetricValues, points.get_metric_values),
    "get_snapshot": Endpoint(points.Snapshot, points.get_snapshot),
    "get_traces": Endpoint(traces.Traces, traces.get_traces),
    "get_trace_steps": Endpoint(reads.OfRun, traces.get_trace_steps),
    "query_project": Endpoint(sql.Query, sql.query_project),
    "get_artifact_manifest": Endpoint(catalog.OfArtifact, catalog.get_artifact_manifest),
    "get_artifacts": Endpoint(reads.OfProject, catalog.get_artifacts),
    "list_artifacts": Endpoint(reads.OfProject, catalog.list_artifacts),
    "get_run_artifacts": Endpoint(reads.OfRun, catalog.get_run_artifacts),
    "get_run_artifact_counts": Endpoint(reads.OfProject, catalog.get_run_artifact_counts),
    "get_artifact_consumers": Endpoint(catalog.OfVersion, catalog.get_artifact_consumers),
    "get_artifact_lineage": Endpoint(catalog.OfVersion, catalog.get_artifact_lineage),
    "get_settings": Endpoint(writes.Nothing, get_settings),
    "get_registries": Endpoint(writes.Nothing, get_registries),
    "get_registry_buckets": Endpoint(writes.Nothing, get_registry_buckets),
    "bulk_log": Endpoint(writes.BulkLog, writes.bulk_log, writes=True),
    "bulk_log_system": Endpoint(writes.BulkSystem, writes.bulk_log_system, writes=True),
    "bulk_alert": Endpoint(writes.BulkAlert, writes.bulk_alert, writes=True),
    "log": Endpoint(writes.SingleLog, writes.log, writes=True),
    "bulk_upload_media": Endpoint(writes.BulkUpload, writes.bulk_upload_media, writes=True),
    "check_artifact_blobs": Endpoint(writes.CheckBlobs, writes.check_artifact_blobs, writes=True),
    "bulk_upload_artifact_blob": Endpoint(writes.BulkBlob, writes.bulk_upload_artifact_blob, writes=True),
    "artifact_log": Endpoint(writes.ArtifactLog, writes.artifact_log, writes=True),
    "log_artifact_use": Endpoint(writes.ArtifactUse, writes.log_artifact_use, writes=True),
    "delete_run": Endpoint(writes.DeleteRun, writes.delete_run, writes=True),
    "rename_run": Endpoint(writes.RenameRun, writes.rename_run, writes=True),
    "force_sync": Endpoint(writes.Nothing, writes.force_sync, writes=True),
}
