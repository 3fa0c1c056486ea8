"""States of a mirror, as they are read from the clouds."""

from codecommit_mirror.azure.client import Repository
from codecommit_mirror.azure.state import AzureState

SOURCE = Repository("id", "MyRepo", "project", "main")


def azure_state(definition=None, **changes):
    """Return a state in Azure DevOps: nothing but the source and perhaps a pipeline, unless changed."""
    values = {
        "source": SOURCE,
        "yaml_repository": SOURCE,
        "branch": "main",
        "tip": "1" * 40,
        "text": None,
        "lfs": False,
        "pull_request": None,
        "proposed_tip": None,
        "proposed_text": None,
        "proposed_by_us": False,
        "definition": definition,
        "foreign_definitions": (),
        "protected": None,
    }
    return AzureState(**{**values, **changes})
