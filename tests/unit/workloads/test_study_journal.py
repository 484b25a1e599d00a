from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import optuna
import pytest

from spillway.checkpoints import FolderStore
from spillway.errors import StoreError
from spillway.workloads.study_journal import PAGE_RECORDS, StoreJournal

if TYPE_CHECKING:
    from pathlib import Path


class CountingStore(FolderStore):
    """A store that knows how often it was read."""

    reads = 0

    def get(self, path: str) -> bytes | None:
        self.reads += 1
        return super().get(path)


def records(writer: int, count: int) -> list[dict[str, int]]:
    return [{"writer": writer, "number": number} for number in range(count)]


def test_records_of_writers_that_race_are_all_there_once_and_in_their_order(tmp_path: Path) -> None:
    def write(writer: int) -> None:
        journal = StoreJournal(FolderStore(tmp_path), "study")
        for record in records(writer, 40):
            journal.append_logs([record])

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, range(4)))

    seen = list(StoreJournal(FolderStore(tmp_path), "study").read_logs(0))
    assert len(seen) == 4 * 40
    for writer in range(4):
        assert [each for each in seen if each["writer"] == writer] == records(writer, 40)


def test_a_reader_sees_what_was_written_after_it_had_read_to_the_end(tmp_path: Path) -> None:
    reader, writer = (StoreJournal(FolderStore(tmp_path), "study") for _ in range(2))
    writer.append_logs(records(0, 3))
    assert list(reader.read_logs(1)) == records(0, 3)[1:]
    writer.append_logs(records(1, 2))
    assert list(reader.read_logs(3)) == records(1, 2)


def test_a_late_reader_reads_pages_instead_of_records(tmp_path: Path) -> None:
    StoreJournal(FolderStore(tmp_path), "study").append_logs(records(0, 4 * PAGE_RECORDS + 3))
    store = CountingStore(tmp_path)
    seen = list(StoreJournal(store, "study").read_logs(0))
    assert seen == records(0, 4 * PAGE_RECORDS + 3)
    assert store.reads < 15


def test_a_page_that_was_never_written_is_not_missed(tmp_path: Path) -> None:
    """Its writer died between the record and the page."""
    written = records(0, 2 * PAGE_RECORDS + 3)
    StoreJournal(FolderStore(tmp_path), "study").append_logs(written)
    FolderStore(tmp_path).delete("study/pages/000000.json")
    assert list(StoreJournal(FolderStore(tmp_path), "study").read_logs(0)) == written


def test_what_is_no_journal_is_named(tmp_path: Path) -> None:
    FolderStore(tmp_path).put("study/records/00000000.json", b"my thesis")
    with pytest.raises(StoreError, match=r"00000000\.json .* give the sweep a folder of its own"):
        StoreJournal(FolderStore(tmp_path), "study").read_logs(0)


def test_optuna_finds_in_it_what_another_process_told(tmp_path: Path) -> None:
    def study() -> optuna.Study:
        return optuna.create_study(
            study_name="shared",
            storage=optuna.storages.JournalStorage(StoreJournal(FolderStore(tmp_path), "study")),
            load_if_exists=True,
        )

    one, other = study(), study()
    trial = one.ask()
    trial.report(0.5, 1)
    one.tell(trial, trial.suggest_float("x", 0, 1))
    (found,) = other.trials
    assert found.params == one.trials[0].params
    assert found.intermediate_values == {1: 0.5}
    assert other.ask().number == 1
