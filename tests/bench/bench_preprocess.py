"""Preprocessing in the embedded way, with Ray Data, and with DuckDB and Polars, as far as these do the same.

Three pieces of work are compared, and none is the whole of the preprocessing:

- cleaning: line ends, blanks at the ends of lines, copies that differ in white space only, and which documents are for
  validation. Python, DuckDB and Polars do all of it; Unicode's composed form is left out for all, as Polars has it and
  DuckDB's differs.
- counting: how often each token follows each, which the baselines of a dataset are made of. All three do it.
- encoding: a text to tokens by the byte-level BPE that the dataset has. Neither DuckDB nor Polars can, so it is the embedded way
  beside Ray Data, whose start is told on its own.

Each answer is compared before it is timed; the fastest of a few runs counts.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import time
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from measurement import Baseline, Measurement, NotHere

if TYPE_CHECKING:
    from collections.abc import Callable

BYTES = 6_000_000
TOKENS = 2_000_000
VOCABULARY = 2048
RUNS = 3
RAY_SETTINGS = {
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # what becomes the default; without it Ray warns
    "RAY_AUTH_TOKEN": secrets.token_hex(32),  # or Ray would keep one in the home folder
    "RAY_USAGE_STATS_ENABLED": "0",
}


def run() -> list[Measurement]:
    """Measure the pieces of work."""
    return [*cleaning(), *counting(), *encoding()]


def cleaning() -> list[Measurement]:
    """Clean raw text in three ways, which agree."""
    raw = raw_corpus()
    ways: dict[str, Callable[[dict[str, str]], dict[str, bool]]] = {
        "embedded": with_python,
        "DuckDB": with_duckdb,
        "Polars": with_polars,
    }
    assert ways["DuckDB"](raw) == ways["embedded"](raw), "DuckDB cleans otherwise"
    assert ways["Polars"](raw) == ways["embedded"](raw), "Polars cleans otherwise"
    return compared("cleaning the corpus", {name: partial(ways[name], raw) for name in ways})


def counting() -> list[Measurement]:
    """Count pairs of tokens in three ways, which agree; each gives an array, as the baselines go on with one."""
    import duckdb
    import numpy as np
    import polars as pl
    import pyarrow as pa

    from spillway.workloads.baselines import count_pairs

    tokens = (np.random.default_rng(0).zipf(1.3, size=TOKENS) % VOCABULARY).astype(np.uint16)
    pairs = {"before": tokens[:-1], "after": tokens[1:]}

    def as_array(counted: Any) -> Any:
        counts = np.zeros((VOCABULARY, VOCABULARY), dtype=np.int64)
        counts[np.asarray(counted["before"]), np.asarray(counted["after"])] = counted["n"]
        return counts

    def with_sql() -> Any:
        with duckdb.connect() as connection:
            connection.register("pairs", pa.table(pairs))
            query = "select before, after, count(*) as n from pairs group by before, after"
            return as_array(connection.execute(query).fetchnumpy())

    def with_expressions() -> Any:
        return as_array(pl.DataFrame(pairs).group_by("before", "after").len("n"))

    def embedded() -> Any:
        return count_pairs([tokens], VOCABULARY)

    assert np.array_equal(with_sql(), embedded()), "DuckDB counts otherwise"
    assert np.array_equal(with_expressions(), embedded()), "Polars counts otherwise"
    ways = {"embedded": embedded, "DuckDB": with_sql, "Polars": with_expressions}
    return compared(f"counting pairs of {TOKENS // 1_000_000} M tokens", ways)


def compared(what: str, ways: dict[str, Callable[[], Any]]) -> list[Measurement]:
    """Time each way and tell it as a multiple of the embedded one."""
    seconds = {name: fastest(way) for name, way in ways.items()}
    baseline = Baseline(name="embedded", value=seconds["embedded"])
    return [
        Measurement(
            name=f"{what}, {name}",
            value=seconds[name],
            unit="s",
            baseline=None if name == "embedded" else baseline,
        )
        for name in ways
    ]


def encoding() -> list[Measurement]:
    """Encode the planned shard of a dataset with both engines; Ray is started once, before."""
    try:
        import ray
        import ray.data
    except ModuleNotFoundError as error:
        raise NotHere(f"{error.name} is not installed") from error
    from spillway.runtime import Session
    from spillway.workloads import preprocess

    with TemporaryDirectory() as folder:
        session = Session.local(Path(folder) / "session")
        output = str(Path(folder) / "data")
        (shard,) = preprocess.plan(session, output=output, size="small", shards=1)

        def encode(engine: str) -> Any:
            return preprocess.encode(session, output=output, shard=shard, engine=engine)

        encode("embedded")  # its threads are made at the first call
        embedded = fastest(lambda: encode("embedded"))
        began = time.perf_counter()
        for name, value in RAY_SETTINGS.items():
            os.environ.setdefault(name, value)
        ray.init(
            address="local",
            num_gpus=0,
            include_dashboard=False,
            log_to_driver=False,
            object_store_memory=200_000_000,
        )
        start = time.perf_counter() - began
        try:
            assert encode("ray") == encode("embedded"), "Ray Data writes something else"
            with_ray = fastest(lambda: encode("ray"), runs=1)
        finally:
            ray.shutdown()
    return [
        Measurement(name="encoding 3 MB, embedded", value=embedded, unit="s"),
        Measurement(
            name="encoding 3 MB, Ray Data",
            value=with_ray,
            unit="s",
            baseline=Baseline(name="embedded", value=embedded),
        ),
        Measurement(name="starting Ray for it", value=start, unit="s"),
    ]


def raw_corpus() -> dict[str, str]:
    """Return text by path as it lies on disk, with some copies that differ in white space only."""
    from spillway.workloads import corpus

    folder = corpus.standard_library()
    found: dict[str, str] = {}
    size = 0
    for path in corpus.find(folder):
        try:
            text = corpus.decode((folder / path).read_bytes())
        except (SyntaxError, UnicodeDecodeError):
            continue
        if not text.isascii():  # else they differ in what a blank is
            continue
        text = text.replace("\f", "").replace("\v", "")
        found[path] = text
        size += len(text)
        if len(found) % 10 == 0:
            found[f"{path}.copy"] = text.replace("\n", "  \r\n")
        if size > BYTES:
            return found
    return found


def with_python(raw: dict[str, str]) -> dict[str, bool]:
    """Do as the preprocessing does; return for each document that is kept whether it is for validation."""
    from spillway.workloads import corpus

    documents = (corpus.Document(path=path, text=corpus.normalise(raw[path])) for path in raw)
    kept = list(corpus.without_copies(documents))
    validation = corpus.choose_validation(kept)
    return {document.path: document.digest in validation for document in kept}


_CLEAN_SQL = r"""
with lines as (
  select row, path,
    regexp_replace(replace(replace(text, chr(13) || chr(10), chr(10)), chr(13), chr(10)), '[ \t]+(\n|$)', '\1', 'g') as text
  from raw
), documents as (
  select row, path,
    case when trim(text, chr(10)) = '' then '' else trim(text, chr(10)) || chr(10) end as text
  from lines
), marked as (
  select row, path, text,
    row_number() over (partition by sha256(trim(regexp_replace(text, '\s+', ' ', 'g'))) order by row) as nth
  from documents
)
select path, ('0x' || substr(sha256(text), 1, 8))::bigint % 100 < 5 as validates
from marked where nth = 1 and text <> ''
"""


def with_duckdb(raw: dict[str, str]) -> dict[str, bool]:
    """Do the same in one query."""
    import duckdb
    import pyarrow as pa

    table = pa.table({"row": range(len(raw)), "path": list(raw), "text": list(raw.values())})
    with duckdb.connect() as connection:
        connection.register("raw", table)
        return dict(connection.execute(_CLEAN_SQL).fetchall())


def with_polars(raw: dict[str, str]) -> dict[str, bool]:
    """Do the same with expressions; SHA-256 is Python's, as Polars has none, so it is not timed as Polars alone."""
    import polars as pl

    cleaned = (
        pl.DataFrame({"path": list(raw), "text": list(raw.values())})
        .with_columns(
            pl.col("text")
            .str.replace_all("\r\n", "\n", literal=True)
            .str.replace_all("\r", "\n", literal=True)
            .str.replace_all(r"(?m)[ \t]+$", "")
            .str.strip_chars("\n")
        )
        .filter(pl.col("text").str.len_bytes() > 0)
        .with_columns(words=pl.col("text").str.replace_all(r"\s+", " ").str.strip_chars())
        .unique("words", keep="first", maintain_order=True)
        .select("path", pl.col("text") + "\n")
    )
    return {
        path: int(hashlib.sha256(text.encode()).hexdigest()[:8], 16) % 100 < 5
        for path, text in cleaned.iter_rows()
    }


def fastest(work: Callable[[], Any], *, runs: int = RUNS) -> float:
    """Return the least time of a few runs, in seconds."""
    times = []
    for _ in range(runs):
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
    return min(times)
