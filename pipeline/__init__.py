"""From annotations to a snapshot: plan, fetch, decode, encode, shard, publish."""
