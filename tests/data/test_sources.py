"""Sources, looked at without Spark: what cannot be loaded is refused before anything starts."""

from __future__ import annotations

import gzip
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import orc, parquet

from ml_platform.data.load import check_source
from ml_platform.data.sources import check_columns, plain_files, source_columns
from ml_platform.errors import DataError, PlatformError, SpecError
from ml_platform.specs.contracts import Contract
from ml_platform.specs.sources import ReadingSpec


def test_readers_are_imported_on_first_use() -> None:
    """Each brings libraries of its own."""
    code = (
        "import sys; from ml_platform.data.sources import READERS, open_source; open_source('sklearn:iris'); "
        "print(*(kind for kind, reader in READERS.items() if reader.split(':')[0] in sys.modules))"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout.split() == ["sklearn"]


def written(path: Path, content: str | bytes) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return str(path)


@pytest.mark.parametrize(
    ("name", "columns", "first"),
    [
        ("digits", 65, "pixel_0_0"),
        ("iris", 5, "sepal_length_cm"),
        ("breast_cancer", 31, "mean_radius"),
        ("wine", 14, "alcohol"),
        ("diabetes", 11, "age"),
    ],
)
def test_bundled_tables_have_simple_names_and_a_label(name: str, columns: int, first: str) -> None:
    """The label is `target` where it is a number, as scikit-learn calls it."""
    label = "target" if name == "diabetes" else "label"
    check_source(f"sklearn:{name}", label)
    names = source_columns(f"sklearn:{name}")
    assert (len(names), names[0], names[-1]) == (columns, first, label)
    assert all(part.isidentifier() for part in names)


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("a,b\n1,2\n", ("a", "b")),
        ("a;b\n1,5;2\n", ("a", "b")),
        ("a\tb\n1\t2\n", ("a", "b")),
        ("a|b\n1|2\n", ("a", "b")),
        ("\ufeffa , b\r\n1,2\r\n", ("a", "b")),
        ('"a;1","b\n2"\n1,2\n', ("a;1", "b\n2")),
        ("only\n1\n", ("only",)),
    ],
)
def test_the_delimiter_of_a_csv_header_is_found(tmp_path: Path, text: str, names: tuple[str, ...]) -> None:
    source = written(tmp_path / "t.csv", text)
    assert source_columns(source) == names
    check_source(source, names[0])


def test_parquet_files_and_folders_are_read_by_their_footers(tmp_path: Path) -> None:
    table = pa.table({"a": [1], "label": ["x"]})
    for key in ("2024", "2025"):
        (tmp_path / "t" / f"year={key}").mkdir(parents=True)
        parquet.write_table(table, tmp_path / "t" / f"year={key}" / "f.parquet")
    written(tmp_path / "t" / "_SUCCESS", "")
    written(tmp_path / "t" / "_old" / "bad.parquet", "no parquet")
    assert source_columns(str(tmp_path / "t")) == ("a", "label", "year")
    check_source(str(tmp_path / "t"), "label")
    single = tmp_path / "t" / "year=2024" / "f.parquet"
    check_source(single.as_uri(), "label")
    assert source_columns(str(single.rename(tmp_path / "no_suffix"))) == ("a", "label")


def test_orc_and_compressed_text_are_read(tmp_path: Path) -> None:
    (tmp_path / "t").mkdir()
    orc.write_table(pa.table({"a": [1], "label": ["x"]}), tmp_path / "t" / "f.orc")
    for path in (tmp_path / "t", tmp_path / "t" / "f.orc"):
        check_source(str(path), "label")
        assert plain_files(str(path), Contract(columns=())) == (), "no Parquet file, for who scores it"
        assert source_columns(str(path)) == ("a", "label")
    for name, text in (("t.csv.gz", "a;label\n1;x\n"), ("t.jsonl.gz", '{"a": 1}\n{"label": "x"}\n')):
        source = written(tmp_path / name, gzip.compress(text.encode()))
        check_source(source, "label")
        assert source_columns(source) == ("a", "label")


def empty_parquet(path: Path) -> str:
    parquet.write_table(pa.table({"label": pa.array([], pa.string())}), path)
    return str(path)


def cut_parquet(path: Path) -> str:
    parquet.write_table(pa.table({"label": ["x"] * 100}), path)
    return written(path, path.read_bytes()[:-9])


def mixed_folder(path: Path) -> str:
    path.mkdir()
    parquet.write_table(pa.table({"label": ["x"], "a": [1]}), path / "1.parquet")
    parquet.write_table(pa.table({"label": ["x"], "b": [1]}), path / "2.parquet")
    return str(path)


def folder(path: Path) -> str:
    path.mkdir()
    written(path / "notes.md", "x")
    return str(path)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda path: str(path / "t.csv"), DataError, "there is no file"),
        (folder, DataError, "holds no data(.|\n)*csv(.|\n)*parquet"),
        (lambda path: written(path / "t.csv", ""), DataError, "is empty"),
        (lambda path: written(path / "t.csv", "\n\n"), DataError, "is empty"),
        (lambda path: written(path / "t.csv", "a,label\n"), DataError, "is empty(.|\n)*a header alone"),
        (lambda path: written(path / "t.csv", "a,,label\n1,2,3\n"), DataError, "column 2 of 3"),
        (lambda path: written(path / "t.csv", "a,A,label\n1,2,3\n"), DataError, "same name(.|\n)*A, a"),
        (lambda path: written(path / "t.csv", "a,lable\n1,2\n"), SpecError, "did you mean 'lable'"),
        (lambda path: written(path / "t.csv", b"a,label\n\0,2\n"), DataError, "NUL byte at 8"),
        (lambda path: written(path / "t.csv", "é,b".encode() + b"caf\xe9,label\n1,2\n"), DataError, "0xe9"),
        (lambda path: written(path / "t.xlsx", b"PK\3\4"), DataError, "no known kind"),
        (empty_parquet, DataError, "is empty(.|\n)*0 rows in 1 files"),
        (cut_parquet, DataError, "t.parquet is not a whole Parquet file"),
        (mixed_folder, DataError, r"2.parquet has other columns than 1.parquet"),
        (lambda path: written(path / "t.orc", b"ORC cut"), DataError, "t.orc is not a whole ORC file"),
        (lambda path: written(path / "t.csv.gz", b"a,label"), DataError, "not a whole gzip file"),
        (lambda path: written(path / "t.csv.gz", gzip.compress(b"x" * 99)[:-9]), DataError, "a whole gzip"),
        (lambda path: written(path / "t.parquet.gz", gzip.compress(b"PAR1")), DataError, "no known kind"),
        (lambda path: written(path / "t.json", "\n"), DataError, "is empty"),
        (lambda path: written(path / "t.json", '[{"label": 1}]'), DataError, "line 1 is no JSON(.|\n)*jq"),
        (lambda path: written(path / "t.json", '\n{"a'), DataError, "line 2(.|\n)*Unterm"),
        (lambda path: written(path / "t.json", '{"label": 1, "label": 2}'), DataError, "'label' twice"),
        (lambda path: written(path / "t.json", b'{"label": "caf\xe9"}'), DataError, "line 1(.|\n)*utf-8"),
        (lambda path: "sklearn:digist", SpecError, "did you mean 'digits'"),
        (lambda path: "nowhere://bucket/t.parquet", SpecError, "cannot read nowhere://"),
    ],
)  # fmt: skip
def test_what_cannot_be_loaded_is_refused_with_its_name(
    tmp_path: Path, make: object, error: type[PlatformError], message: str
) -> None:
    target = tmp_path if make.__name__ == "<lambda>" else tmp_path / "t.parquet"  # type: ignore[attr-defined]
    source = make(target)  # type: ignore[operator]
    with pytest.raises(error, match=message):
        check_source(source, "label")


def test_a_missing_file_names_its_neighbour(tmp_path: Path) -> None:
    written(tmp_path / "churn.csv", "a\n1\n")
    with pytest.raises(DataError, match=r"did you mean 'churn.csv'"):
        check_source(str(tmp_path / "chrun.csv"), "a")
    with pytest.raises(DataError, match="there is no folder"):
        check_source(str(tmp_path / "nowhere" / "t.csv"), "a")


class TestTableToScore:
    """Beside the one to learn from, before anything starts."""

    @pytest.fixture
    def table(self, tmp_path: Path) -> str:
        columns = {"age": [1, 2], "city": ["a", "b"], "at": ["x", "y"], "label": [0, 1]}
        parquet.write_table(pa.table(columns), tmp_path / "t.parquet")
        return str(tmp_path / "t.parquet")

    def check(
        self,
        table: str,
        columns: dict[str, list[object]],
        schema: str | None = None,
        left_out: tuple[str, ...] = (),
    ) -> None:
        score = str(Path(table).with_name("score.parquet"))
        parquet.write_table(pa.table(columns), score)
        check_columns(table, "label", ReadingSpec(), schema, score, left_out=left_out)

    def test_the_label_may_lack_others_may_be_more_and_numbers_serve_for_numbers(self, table: str) -> None:
        self.check(table, {"age": [1.5], "city": [7], "at": ["z"], "more": [1]})

    def test_a_column_that_lacks_is_named_with_its_nearest(self, table: str) -> None:
        with pytest.raises(DataError, match=r"column 'city'(.|\n)*did you mean 'cities'"):
            self.check(table, {"age": [1], "cities": ["a"], "at": ["z"]})

    def test_a_column_that_the_model_does_not_read_may_lack(self, table: str) -> None:
        """The group of new rows is often not known; what else lacks may be left out of the model."""
        self.check(table, {"city": ["a"], "at": ["z"]}, left_out=("age",))
        with pytest.raises(DataError, match=r"to learn without it: --features\.drop age"):
            self.check(table, {"city": ["a"], "at": ["z"]})

    def test_a_column_of_another_type_is_named_with_both(self, table: str) -> None:
        with pytest.raises(DataError, match=r"wanted: column 'age' of type integer\n  got: string"):
            self.check(table, {"age": ["old"], "city": ["a"], "at": ["z"]})

    def test_a_column_that_the_schema_drops_may_be_anything(self, table: str, tmp_path: Path) -> None:
        schema = written(tmp_path / "schema.yaml", "columns:\n  age: drop\n")
        self.check(table, {"age": ["old"], "city": ["a"], "at": ["z"]}, schema)
