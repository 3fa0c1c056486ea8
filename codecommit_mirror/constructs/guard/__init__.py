"""The guard's constructs: notifications, function, triggers and dashboard."""
