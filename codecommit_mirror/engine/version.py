"""The version of the engine, which is that of the package that carries it."""

VERSION = "1.0.0"
