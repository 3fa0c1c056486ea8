"""States of a mirror, as they are read from the clouds."""

from codecommit_mirror.azure.files import FilePlace
from codecommit_mirror.azure.rest.objects import ProjectSettings, Repository
from codecommit_mirror.azure.state import AzureState, Remains

SOURCE = Repository("id", "MyRepo", "project", "main")


def azure_state(definition=None, **changes):
    """Return a state in Azure DevOps: nothing but the source and perhaps a pipeline, unless changed."""
    values = {
        "source": SOURCE,
        "former_yaml": None,
        "lfs": False,
        "definition": definition,
        "foreign_definitions": (),
        "settings": ProjectSettings(False, True),
    }
    of_place = {name: changes.pop(name) for name in FilePlace.__dataclass_fields__.keys() & changes.keys()}
    return AzureState(**{**values, "yaml": yaml_place(**of_place), **changes})


def remains(definition=None):
    """Return what a mirror has in Azure DevOps that is to be taken down: perhaps a pipeline, and no file."""
    return Remains(definition, (yaml_place(),))


def yaml_place(**changes):
    """Return where a mirror's YAML belongs, without a file, unless changed."""
    values = {
        "repository": SOURCE,
        "branch": "main",
        "path": "azure-pipelines-mirror.yml",
        "tip": "1" * 40,
        "text": None,
        "proposal": "codecommit-mirror/MyRepoReplica",
        "pull_request": None,
        "proposed_tip": None,
        "proposed_text": None,
        "proposed_by_us": False,
    }
    return FilePlace(**{**values, **changes})
