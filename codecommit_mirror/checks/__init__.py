"""How mirrors are: read, judged, and shown as a page."""
