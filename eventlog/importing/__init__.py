"""Bring exported runs into a store: as new records with their origin, each source once, all of it or nothing."""
