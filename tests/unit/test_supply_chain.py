"""What is installed: pinned, hashed, from third parties, and under which licences."""

import json
import os
import re
from importlib.metadata import metadata
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LICENSES = ROOT / "docs" / "licenses.md"
FILES = ("requirements", "requirements-dev", "requirements-release")
ENTRY = re.compile(r"([a-z0-9][a-z0-9.-]*)==(\S+?)(?: ; [^\\\n]+)? \\\n((?:    --hash=sha256:[0-9a-f]{64}(?: \\)?\n)+)")
HEAD = """# Licences

What `requirements.txt` installs, and under which licence. Nothing of it is part of this repository.

| Package | Version | Licence |
|---|---|---|
"""


def entries(name):
    """Return the pinned versions of a requirements file, by package, and what is in it beside them."""
    text = (ROOT / f"{name}.txt").read_text()
    rest = ENTRY.sub("", text)
    return {package: version for package, version, _ in ENTRY.findall(text)}, rest


@pytest.mark.parametrize("name", FILES)
def test_everything_is_pinned_with_its_hashes_and_nothing_names_a_registry(name):
    pinned, rest = entries(name)
    assert len(pinned) > 10
    assert [line for line in rest.splitlines() if not line.startswith("#")] == []
    assert "://" not in rest


def test_all_files_have_the_same_versions():
    everything, _ = entries("requirements-dev")
    assert entries("requirements")[0].items() <= everything.items()


def test_npm_checks_hashes_and_names_no_registry():
    packages = json.loads((ROOT / "package-lock.json").read_text())["packages"]
    third_parties = {name: package for name, package in packages.items() if name}
    assert third_parties
    assert all(package["integrity"].startswith("sha512-") for package in third_parties.values())
    assert not any("resolved" in package for package in third_parties.values())


def license_of(package):
    """Return what the package says: an expression, else what its text or its classifiers say."""
    known = metadata(package)
    classifiers = [c.rpartition(" :: ")[2] for c in known.get_all("Classifier") or [] if c.startswith("License ::")]
    words = (known.get("License") or "").strip()
    vague = "\n" in words or words in ("", "UNKNOWN", "Dual License")
    return known.get("License-Expression") or (", ".join(classifiers) if vague else words)


def test_each_licence_is_named():
    """Set UPDATE_SNAPSHOTS=1 to write the list anew."""
    pinned, _ = entries("requirements")
    rows = "".join(
        f"| {package} | {version} | {license_of(package)} |\n" for package, version in sorted(pinned.items())
    )
    if os.environ.get("UPDATE_SNAPSHOTS"):
        LICENSES.write_text(HEAD + rows)
    assert LICENSES.read_text() == HEAD + rows
    assert not re.search(r"\|\s+\|$", rows, re.MULTILINE)
