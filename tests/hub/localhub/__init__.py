"""A local Hugging Face Hub for tests: a real HTTP server on loopback that the unmodified client talks to.

`process.LocalHub` starts it in a process of its own, `fixtures` hands it to tests, and `sweep.sweep_faults` runs an
operation with each fault of `faults.Kind` at each of its requests. `python -m localhub --dir D --port 0` serves it by
hand. It knows buckets, repositories (datasets, models, Spaces), Spaces, tokens and the xet store, as far as this
project uses them; its own routes for tests begin with `/-/` and are not in the log.

What was learnt of the client (huggingface_hub 2.4, hf_xet 1.8), each seen to happen here:

- `HF_ENDPOINT`, `HF_HOME` and `HF_HUB_OFFLINE` are read when huggingface_hub is imported. In a process that has
  imported it, pass `endpoint=` and `token=` to `HfApi` and `HfFileSystem`, and `cache_dir=` to downloads from
  repositories; `clients.isolated_client` undoes an offline mode that another test had set before.
- hf_xet reads `HF_XET_*` and `HF_HOME` when its session is made; `huggingface_hub.utils._xet.abort_xet_session()`
  ends the session, and the next call makes another. `clients.fresh_client` does that.
- hf_xet remembers under `HF_XET_CACHE` (else `HF_HOME/xet`), per endpoint, which chunks it uploaded, and does not
  upload them again. When the Hub forgets them (`LocalHub.load`, a new directory on the same port), the upload fails
  with 400.
- A xet token is renewed 30 seconds before it expires; with a shorter life, before each request.
- huggingface_hub tries again 5 times on 408, 429, 5xx and broken connections, after 1, 2, 4, 8 and 8 seconds; on 429
  after `Retry-After` + 1 seconds. Not so `whoami`, `create_bucket`, `create_repo`, `create_commit` and what changes a
  Space: those raise at once, `httpx2.HTTPError` for a broken connection and `HfHubHTTPError` for a status, and may
  have been applied.
- hf_xet tries again on its own (`HF_XET_CLIENT_RETRY_BASE_DELAY`), but not on 401: it raises ConnectionError for
  uploads and RuntimeError for downloads, and then leaves an empty file. It does not check what it downloads: a
  changed byte of a chunk that is not compressed reaches the file.
- Each upload asks two routes of the xet store that are not served here, and each download one; see `cas`.
- `create_repo(exist_ok=True)` for what exists and may not be created (401, 402, 403) raises HfUriError when the
  endpoint is not that of `HF_ENDPOINT` at import; ask `repo_exists` first.
- Telemetry goes to the xet store too (`HF_XET_TELEMETRY_ENABLED=0`), not only to the Hub
  (`HF_HUB_DISABLE_TELEMETRY=1`).
- The client's rule that a 401 from a repository means "not found" asks for https, so it never applies on loopback.
"""
