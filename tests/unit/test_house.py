"""The house itself: what the README promises is there, links lead somewhere, and nothing is in it that does not belong."""

from __future__ import annotations

import re
import subprocess
import tomllib
from functools import cache
from pathlib import Path
from typing import Any

import pytest

PROJECT = Path(__file__).parents[2]
DOCUMENTS = [PROJECT / "README.md", *sorted((PROJECT / "docs").rglob("*.md"))]
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
TEST = re.compile(r"`((?:tests|include)/[\w/]+\.py)(?:::(test_\w+))?`")
FILE = re.compile(r"`([\w./-]+\.(?:py|ya?ml|toml|html))(?:::(test_\w+))?`")
MODULE = re.compile(r"`([a-z]\w*(?:\.\w+)+)(?:\([^`]*\))?`")

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


@cache
def project_files() -> tuple[str, ...]:
    folders = ("dags", "docs", "include", "plugins", "tests")
    inside = [path for folder in folders for path in (PROJECT / folder).rglob("*")]
    paths = [*PROJECT.glob("*.*"), *(path for path in inside if path.is_file())]
    return tuple(path.relative_to(PROJECT).as_posix() for path in paths)


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
def test_every_file_and_test_a_document_names_exists(document: Path) -> None:
    """A file may be named by the end of its path."""
    if document == PROJECT / "docs" / "decisions" / "0001-plugin-file-name.md":
        return  # it is about a name that no file may have
    for name, test in FILE.findall(document.read_text()):
        found = [path for path in project_files() if f"/{path}".endswith(f"/{name}")]
        assert found, name
        codes = [(PROJECT / path).read_text() for path in found]
        assert not test or any(f"def {test}(" in code for code in codes), f"{name}::{test}"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_module_a_document_names_exists_and_has_what_is_named(document: Path) -> None:
    for name in MODULE.findall(document.read_text()):
        folder, *names = name.removeprefix("spillway.").split(".")
        place = PROJECT / "include" / "spillway" / folder
        if not place.is_dir() or name.endswith((".cfg", ".db")):
            continue  # somebody else's module, or a file
        while names and (place / names[0]).is_dir():
            place /= names.pop(0)
        is_module = bool(names) and (place / f"{names[0]}.py").exists()
        code = (place / (f"{names.pop(0)}.py" if is_module else "__init__.py")).read_text()
        assert all(re.search(rf"\b{one}\b", code) for one in names), name


def test_every_message_that_operations_explains_is_one_of_ours() -> None:
    text = (PROJECT / "docs" / "operations.md").read_text()
    _, _, table = text.partition("## What to do when")
    code = "".join(path.read_text() for path in (PROJECT / "include").rglob("*.py"))
    code = re.sub(r'"\s*\n\s*f?"', "", code)  # messages are written over several lines
    for row in table.partition("\n## ")[0].splitlines():
        for message in re.findall(r"`([^`]*)`", row.split("|")[1] if "|" in row else ""):
            pieces = re.split(r"\.\.\.|\b[MNXY]\b|\d+", message)
            of_sqlite = message == "database is locked"
            assert of_sqlite or all(piece.strip() in code for piece in pieces), message


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
