"""The guard's constructs: bucket, notifications, function, triggers and dashboard."""
