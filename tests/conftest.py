"""What every test needs of its environment, and which tests start first."""

import functools
import os

import botocore.session
from hypothesis import settings

# How long an example takes is the machine's affair; what is measured, a benchmark measures.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")

# jsii's banner about an old Node says nothing of this project, and hides what a test prints.
os.environ.setdefault("JSII_SILENCE_WARNING_END_OF_LIFE_NODE_VERSION", "20")

# Each session reads the models of its services anew, which takes a tenth of a second for each client of a test.
botocore.session.create_loader = functools.cache(botocore.session.create_loader)


def pytest_collection_modifyitems(items):
    """Let each worker begin with one of the modules that take minutes, so that none of them is left for the end.

    Modules that share what takes long to set up have one name, and begin on one worker. Work stealing gives each worker
    an equal share of consecutive tests at first.
    """
    if "PYTEST_XDIST_WORKER_COUNT" not in os.environ:
        return
    workers = int(os.environ["PYTEST_XDIST_WORKER_COUNT"])
    long = {}
    for item in items:
        if marker := item.get_closest_marker("long"):
            long.setdefault(marker.args or item.module, []).append(item)
    shares = [[] for _ in range(workers)]
    for number, tests in enumerate(long.values()):
        shares[number % workers] += tests
    rest = [item for item in items if not item.get_closest_marker("long")]
    size = -(-len(items) // workers)
    items[:] = []
    for share in shares:
        missing = max(0, size - len(share))
        items += share + rest[:missing]
        rest = rest[missing:]
    items += rest
