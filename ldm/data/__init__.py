"""Pictures and captions: making shards, streaming them, batches."""
