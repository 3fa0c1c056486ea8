"""The journeys of many mirrors at once; one that fails does not stop the others."""
