"""The contract on disk: clips, records, shard indices, manifests."""
