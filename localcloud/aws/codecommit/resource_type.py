"""CloudFormation's type of repository: https://docs.aws.amazon.com/AWSCloudFormation/latest/TemplateReference/."""

from __future__ import annotations

from typing import Any

from ministack.core import responses
from ministack.services.cloudformation import drift, provisioners

from .api import CodeCommit, Repository

RESOURCE_TYPE = "AWS::CodeCommit::Repository"


class RepositoryType:
    """What CloudFormation does with repositories.

    Args:
        service: where they are.
    """

    def __init__(self, service: CodeCommit) -> None:
        self._service = service

    def create(self, logical_id: str, properties: dict[str, Any], stack_name: str) -> tuple[str, dict[str, str]]:
        """Create a repository."""
        description = properties.get("RepositoryDescription", "")
        return self._attributes(self._service.create(properties["RepositoryName"], description, _tags(properties)))

    def update(
        self, physical_id: str, old: dict[str, Any], new: dict[str, Any], stack_name: str
    ) -> tuple[str, dict[str, str]]:
        """Change a repository's description and tags."""
        repository = self._service.get(old["RepositoryName"])
        if new["RepositoryName"] != old["RepositoryName"]:
            raise ValueError(f"{RESOURCE_TYPE}: the embedded cloud does not rename repositories")
        repository.description, repository.tags = new.get("RepositoryDescription", ""), _tags(new)
        return self._attributes(repository)

    def delete(self, physical_id: str, properties: dict[str, Any]) -> None:
        """Delete a repository; one that is gone is no error."""
        self._service.delete(properties["RepositoryName"])

    def read(self, physical_id: str, properties: dict[str, Any]) -> dict[str, Any] | None:
        """Return what a repository is now, for drift; None if it is gone, or another one has its name."""
        name = properties["RepositoryName"]
        repository = self._service.find(responses.get_account_id(), responses.get_region(), name)
        if repository is None or repository.id != physical_id:
            return None
        tags = [{"Key": key, "Value": value} for key, value in repository.tags.items()]
        return {"RepositoryDescription": repository.description, "Tags": tags}

    def _attributes(self, repository: Repository) -> tuple[str, dict[str, str]]:
        data = self._service.metadata(repository)
        return repository.id, {
            "Arn": data["Arn"],
            "Name": repository.name,
            "CloneUrlHttp": data["cloneUrlHttp"],
            "CloneUrlSsh": data["cloneUrlSsh"],
        }


def install(service: CodeCommit) -> None:
    """Add the type to ministack's CloudFormation."""
    kind = RepositoryType(service)
    provisioners._RESOURCE_HANDLERS[RESOURCE_TYPE] = {
        "create": kind.create,
        "update": kind.update,
        "delete": kind.delete,
    }
    provisioners._REPLACING_PROPERTIES[RESOURCE_TYPE] = ()
    drift._DRIFT_READERS[RESOURCE_TYPE] = (kind.read, frozenset({"RepositoryDescription", "Tags"}))


def _tags(properties: dict[str, Any]) -> dict[str, str]:
    return {tag["Key"]: tag["Value"] for tag in properties.get("Tags") or []}
