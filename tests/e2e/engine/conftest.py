"""Both sides of a mirror for the engine."""

import pytest

from localcloud.aws.git_service import OtherRefs

from . import servers
from .sides import Sides


@pytest.fixture(params=OtherRefs, ids=lambda setting: setting.value)
def sides(request, tmp_path):
    """Both sides, with each way in which CodeCommit may take refs outside branches and tags."""
    return Sides(tmp_path, request.param)


@pytest.fixture
def strict_sides(tmp_path):
    """Both sides, with the strictest replica."""
    return Sides(tmp_path, OtherRefs.ABORTED)


@pytest.fixture
def git_sides(tmp_path):
    """Both sides, with git's own server as the replica."""
    sides = Sides(tmp_path, OtherRefs.ACCEPTED)
    sides.use(servers.git_replica(sides.replica))
    return sides
