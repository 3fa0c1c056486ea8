"""The embedded cloud: AWS and Azure DevOps on 127.0.0.1, for the demo, the tests and the benchmarks.

It knows AWS and Azure, and nothing of the rest of this project. It is stricter than the clouds, never laxer.
"""

from .cloud import ACCOUNT, REGION, LocalCloud

__all__ = ["ACCOUNT", "REGION", "LocalCloud"]
