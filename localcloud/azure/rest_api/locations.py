"""Where clients find the REST API's resources: ``OPTIONS _apis`` and the resource areas.

Published clients know a resource by an id, and ask the service for its path and versions before anything else. The ids
are those of https://github.com/microsoft/azure-devops-python-api (7.1).
"""

from __future__ import annotations

from typing import Any

_AREAS = {
    "build": "965220d5-5bb9-42cf-8d67-9b146df2a5a4",
    "git": "4e080c62-fa21-4fbc-8fef-2a10a2b38049",
}
_REPOSITORY = "{project}/_apis/{area}/repositories/{repositoryId}"
_BUILD = "{project}/_apis/{area}/builds/{buildId}"
_LOCATIONS = (
    ("225f7195-f9c7-4d14-ab28-a83f7ff77e1f", "git", "repositories", "{project}/_apis/{area}/{resource}/{repositoryId}"),
    ("2d874a60-a811-4f62-9c9f-963a6ea0a55b", "git", "refs", f"{_REPOSITORY}/{{resource}}"),
    ("d5b216de-d8d5-4d32-ae76-51df755b16d3", "git", "branches", f"{_REPOSITORY}/stats/{{resource}}"),
    ("c2570c3b-5b3f-41b8-98bf-5407bfde8d58", "git", "commits", f"{_REPOSITORY}/{{resource}}/{{commitId}}"),
    ("ea98d07b-3c87-4971-8ede-a613694ffb55", "git", "pushes", f"{_REPOSITORY}/{{resource}}/{{pushId}}"),
    ("fb93c0db-47ed-4a31-8c20-47552878fb44", "git", "items", f"{_REPOSITORY}/{{resource}}/{{path}}"),
    (
        "dbeaf647-6167-421a-bda9-c9327b25e2e6",
        "build",
        "definitions",
        "{project}/_apis/{area}/{resource}/{definitionId}",
    ),
    ("0cd358e1-9217-4d94-8269-1c1ee6f93dcf", "build", "builds", "{project}/_apis/{area}/{resource}/{buildId}"),
    ("35a80daf-7f30-45fc-86e8-6b813d9c90df", "build", "logs", f"{_BUILD}/{{resource}}/{{logId}}"),
    ("8baac422-4c6e-4de5-8532-db96d92acffa", "build", "Timeline", f"{_BUILD}/{{resource}}/{{timelineId}}"),
)


def resource_locations() -> list[dict[str, Any]]:
    """Return the answer to ``OPTIONS _apis``: what there is, and in which versions."""
    location = {"e81700f7-3be2-46de-8624-2eb35882fcaa": ("Location", "ResourceAreas", "_apis/{resource}/{areaId}")}
    every = [*_LOCATIONS, *((identifier, *rest) for identifier, rest in location.items())]
    return [
        {
            "id": identifier,
            "area": area,
            "resourceName": resource,
            "routeTemplate": template,
            "resourceVersion": 2,
            "minVersion": "1.0",
            "maxVersion": "7.2",
            "releasedVersion": "7.1",
        }
        for identifier, area, resource, template in every
    ]


def resource_areas(service: str, organization: str) -> list[dict[str, Any]]:
    """Return the answer to ``GET _apis/ResourceAreas``: which host has which resources."""
    url = f"{service}/{organization}/"
    return [{"id": identifier, "name": name, "locationUrl": url} for name, identifier in _AREAS.items()]
