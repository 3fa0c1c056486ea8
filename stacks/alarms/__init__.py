"""Alarms: a replica is tampered with, or no run confirms it any longer."""
