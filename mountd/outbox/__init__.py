"""Results on their way: finished files of a local directory are uploaded to a bucket, and each upload is an event."""
