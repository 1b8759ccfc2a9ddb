"""The snapshot format: Parquet shards and a manifest with digests."""
