"""The JSON Schema of mirrors.yaml, which editors use; docs/mirrors.schema.json is what the command prints."""

import json
import os
from pathlib import Path

import jsonschema
import pytest
import yaml
from click.testing import CliRunner

from codecommit_mirror.cli import cli
from codecommit_mirror.config.schema import json_schema, markdown_tables
from codecommit_mirror.deployment.files import EXAMPLE as ANSWERS
from codecommit_mirror.deployment.files import first_file

PUBLISHED = Path(__file__).parents[3] / "docs" / "mirrors.schema.json"
CONFIGURATION = PUBLISHED.with_name("configuration.md")
EXAMPLE = first_file(ANSWERS)
GOOD = """\
defaults:
  azure: {organization: contoso, project: Shop}
mirrors:
  A: {azure: {repository: a}, refs: [heads], archive_days: 30}
  B: {azure: "https://dev.azure.com/contoso/Shop/_git/b"}
  C: {azure: {repository: "https://me@dev.azure.com/contoso/Shop/_git/c"}, existing: true}
"""


def errors(text):
    return [error.message for error in jsonschema.Draft202012Validator(json_schema()).iter_errors(yaml.safe_load(text))]


def test_it_is_published_as_it_is_printed():
    printed = CliRunner().invoke(cli, ["config", "schema"]).stdout
    if os.environ.get("UPDATE_SNAPSHOTS"):
        PUBLISHED.write_text(printed)
    assert PUBLISHED.read_text() == printed
    jsonschema.Draft202012Validator.check_schema(json.loads(printed))


def test_the_tables_of_the_documentation_are_made_from_it():
    text = CONFIGURATION.read_text()
    for section, table in markdown_tables().items():
        begin, end = f"<!-- keys of {section} -->\n", "<!-- end of keys -->\n"
        before, _, rest = text.partition(begin)
        present, _, after = rest.partition(end)
        if os.environ.get("UPDATE_SNAPSHOTS"):
            text = "".join([before, begin, table, end, after])
            CONFIGURATION.write_text(text)
        else:
            assert present == table


def test_what_loads_is_valid(tmp_path):
    assert errors(EXAMPLE) == []
    assert errors(GOOD) == []
    (tmp_path / "mirrors.yaml").write_text(GOOD)
    done = CliRunner().invoke(cli, ["config", "validate", "--config", str(tmp_path / "mirrors.yaml")])
    assert done.stdout == f"{tmp_path / 'mirrors.yaml'} is valid: 3 mirrors.\n", done.exception


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("refs:", "reffs:", "'reffs' was unexpected"),
        ("archive_days: 30", "archive_days: soon", "is not of type 'integer'"),
        ("existing: true", "existing: perhaps", "is not of type 'boolean'"),
        ("mirrors:", "mirror:", "'mirror' was unexpected"),
    ],
)
def test_what_is_wrong_is_seen_in_the_editor(old, new, words):
    assert any(words in message for message in errors(GOOD.replace(old, new, 1)))


def test_every_mistake_has_its_line_in_order_and_a_near_name(tmp_path):
    file = tmp_path / "mirrors.yaml"
    file.write_text(
        "mirrors:\n"
        "  B:\n    azure: {organization: o, project: p, repository: r}\n    replica_aut: role\n"
        "  A:\n    azure: {organization: o, project: p, repository: r2}\n    archive_days: soon\n"
        "ci: {account: '1'}\n"
    )
    done = CliRunner().invoke(cli, ["config", "validate", "--config", str(file)])
    lines = str(done.exception).splitlines()
    numbers = [int(line.partition(", line ")[2].partition(":")[0]) for line in lines]
    assert numbers == sorted(numbers)
    assert any("did you mean 'replica_auth'?" in line for line in lines)


def test_an_unknown_command_gets_a_suggestion():
    done = CliRunner().invoke(cli, ["statsu"])
    assert (done.exit_code, "Did you mean status?" in done.output) == (2, True)


def test_a_url_that_is_none_of_azures_is_named_with_its_line(tmp_path):
    file = tmp_path / "mirrors.yaml"
    file.write_text("mirrors:\n  A: {azure: 'https://github.com/o/_git/'}\n")
    done = CliRunner().invoke(cli, ["config", "validate", "--config", str(file)])
    assert "line 2: mirror 'A': azure: 'https://github.com/o/_git/' is not an Azure Repos clone URL" in str(
        done.exception
    )
