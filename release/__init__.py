"""A release: built twice from the same commit, compared, described and tagged; nothing is published from here."""
