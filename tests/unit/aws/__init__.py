"""Tests of the package that speaks with AWS."""
