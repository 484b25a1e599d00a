"""The house itself: what the README promises is there, links lead somewhere, and nothing is in it that does not belong."""

from __future__ import annotations

import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest

PROJECT = Path(__file__).parents[2]
DOCUMENTS = [PROJECT / "README.md", *sorted((PROJECT / "docs").rglob("*.md"))]
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
TEST = re.compile(r"`((?:tests|include)/[\w/]+\.py)(?:::(test_\w+))?`")

# Written in pieces, so that this file is not what it looks for.
MACHINE_PATHS = ("/" + "work/", "/" + "tmp/")
REGISTRIES = ("pypi" + ".org", "pythonhosted" + ".org", "download." + "pytorch", "--" + "index-url")

AUTHORSHIP = ("co-authored" + "-by", "generated" + " with", "written by" + " an ai")


@pytest.fixture(scope="module")
def pyproject() -> dict[str, Any]:
    return tomllib.loads((PROJECT / "pyproject.toml").read_text())


@pytest.fixture(scope="module")
def readme() -> str:
    return (PROJECT / "README.md").read_text()


def make_targets() -> set[str]:
    return set(re.findall(r"^(\w+):", (PROJECT / "Makefile").read_text(), re.MULTILINE))


def tracked_texts() -> list[tuple[Path, str]]:
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=PROJECT, capture_output=True, text=True, check=False
    )
    if listed.returncode:
        pytest.skip("not a clone: git lists no files")
    paths = [PROJECT / name for name in listed.stdout.split("\0") if name]
    return [(path, path.read_text(errors="replace")) for path in paths if path.is_file()]


def anchors(document: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", document.read_text(), re.MULTILINE)
    return {
        re.sub(r"[^\w\- ]", "", heading).strip().lower().replace(" ", "-") for heading in headings
    }


def test_the_readme_is_short(readme: str) -> None:
    assert len(readme.split()) < 800


def test_the_readme_keeps_its_order(readme: str) -> None:
    headings = re.findall(r"^## (.+)$", readme, re.MULTILINE)
    assert headings == [
        "Try it",
        "The road",
        "Backends",
        "Goals",
        "Non-goals",
        "Where to read next",
    ]
    assert (
        readme.index("SpillwayOperator(") < readme.index("lease granted") < readme.index("## Try")
    )


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_make_target_a_document_names_exists(document: Path) -> None:
    assert set(re.findall(r"`make (\w+)", document.read_text())) <= make_targets()


def test_the_make_targets_promised_to_everyone_exist() -> None:
    assert {"demo", "test", "check", "bench", "up", "down"} <= make_targets()


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_relative_link_leads_somewhere(document: Path) -> None:
    for link in LINK.findall(document.read_text()):
        if "://" in link:
            continue
        name, _, anchor = link.partition("#")
        target = (document.parent / name).resolve() if name else document
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_test_a_document_points_to_exists(document: Path) -> None:
    for path, test in TEST.findall(document.read_text()):
        code = (PROJECT / path).read_text()
        assert not test or f"def {test}(" in code, f"{path}::{test}"


def test_every_invariant_names_a_test_that_shows_it() -> None:
    text = (PROJECT / "docs" / "architecture.md").read_text()
    invariants = re.split(r"^\d\. \*\*", text.partition("## What holds")[2], flags=re.MULTILINE)[1:]
    assert len(invariants) == 6
    for invariant in invariants:
        assert any(test for _, test in TEST.findall(invariant)), invariant


def test_every_folder_of_the_package_is_in_the_architecture() -> None:
    text = (PROJECT / "docs" / "architecture.md").read_text()
    package = PROJECT / "include" / "spillway"
    for folder in package.iterdir():
        if (folder / "__init__.py").exists():
            assert f"`{folder.name}/`" in text, folder.name


def test_every_backend_of_the_registry_is_in_the_readmes_table(readme: str) -> None:
    from spillway.backends.registry import TABLE

    cells = " ".join(line.split("|")[1] for line in readme.splitlines() if line.startswith("| `"))
    assert {name for name in TABLE if f"`{name}`" not in cells} == set()


def test_every_option_of_the_provider_is_documented() -> None:
    from spillway.airflow.provider import get_provider_info

    text = (PROJECT / "docs" / "operations.md").read_text()
    for section in get_provider_info()["config"].values():
        for option in section["options"]:
            assert f"| `{option}` |" in text


def test_the_lock_file_pins_everything_and_names_no_index() -> None:
    for line in (PROJECT / ".ci" / "lock.txt").read_text().splitlines():
        assert re.match(r"[A-Za-z0-9._-]+(\[[\w,-]+\])?==[^\s]+( ; .+)?$", line), line
        assert "://" not in line


def test_every_extra_that_was_promised_exists(pyproject: dict[str, Any]) -> None:
    promised = {
        "airflow",
        "ray",
        "torch",
        "aws",
        "google",
        "kubernetes",
        "slurm",
        "postgres",
        "dev",
    }
    assert promised <= set(pyproject["project"]["optional-dependencies"])


def test_the_base_install_is_light(pyproject: dict[str, Any]) -> None:
    base = {re.split(r"[<>=\[]", one)[0] for one in pyproject["project"]["dependencies"]}
    assert base == {
        "alembic",
        "numpy",
        "psutil",
        "pydantic",
        "pyyaml",
        "sqlalchemy",
        "threadpoolctl",
        "xxhash",
    }


def test_every_extra_a_document_names_exists(pyproject: dict[str, Any]) -> None:
    extras = set(pyproject["project"]["optional-dependencies"])
    for document in DOCUMENTS:
        for named in re.findall(r"spillway\[([\w,]+)\]", document.read_text()):
            assert set(named.split(",")) <= extras, document.name


def test_nothing_is_tied_to_one_machine_one_index_or_one_author() -> None:
    for path, text in tracked_texts():
        for word in (*REGISTRIES, *MACHINE_PATHS, *AUTHORSHIP):
            assert word not in text.lower(), f"{path}: {word}"
