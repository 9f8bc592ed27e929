"""The shipper: a process of its own that ships what a store seals to a bucket, while jobs log into that store."""
