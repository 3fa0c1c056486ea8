"""Templates of what runs in CI services: the mirror's pipeline, and the pipelines that provision mirrors."""
