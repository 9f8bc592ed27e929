"""The server: Trackio's client and dashboard, unmodified, on top of a store."""
