"""Who is told when a replica is tampered with, or is no longer confirmed."""
