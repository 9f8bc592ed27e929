"""The compactor: the process that folds segments into snapshots. Imports eventlog, and is never imported by it."""
