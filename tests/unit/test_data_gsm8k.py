"""GSM8K from local files, real and broken."""

import gzip
import json

import pytest

from agapo.errors import UserError
from data.gsm8k import INSTRUCTION, prompts

ROW = {"question": "How many?", "answer": "Two and two.\n#### 1,004"}


def write(path, *rows, text=None):
    content = text if text is not None else "".join(json.dumps(row) + "\n" for row in rows)
    path.write_bytes(gzip.compress(content.encode()) if path.suffix == ".gz" else content.encode())
    return path


def write_parquet(path, rows):
    import pyarrow as pa
    from pyarrow import parquet

    parquet.write_table(pa.Table.from_pylist(rows), path)
    return path


def test_row(tmp_path):
    write(tmp_path / "train.jsonl", ROW)
    assert list(prompts("train", path=tmp_path)) == [
        {
            "id": "gsm8k/train/1",
            "messages": [{"role": "user", "content": f"How many?\n\n{INSTRUCTION}"}],
            "domain": "math",
            "language": "en",
            "answer": "1004",
            "solution": "Two and two.",
        }
    ]


def test_real_files(real_data):
    train, test = (list(prompts(split, path=real_data / "gsm8k")) for split in ("train", "test"))
    assert (len(train), len(test)) == (7473, 1319)
    assert test[0]["answer"] == "18"
    assert all(float(row["answer"]) is not None for row in train + test)


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.jsonl.gz", "rows.parquet"])
def test_one_file_serves_both_splits_by_question(tmp_path, name):
    rows = [{**ROW, "question": f"Question {i}?"} for i in range(400)]
    path = tmp_path / name
    write_parquet(path, rows) if path.suffix == ".parquet" else write(path, *rows)
    train, test = ({row["messages"][0]["content"] for row in prompts(split, path=path)} for split in ("train", "test"))
    assert len(train) + len(test) == 400 and not train & test
    assert len(test) == pytest.approx(50, abs=20)


class TestErrors:
    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("", "holds no questions for the split 'train'"),
            ("\n\n", "holds no questions"),
            ('{"question": "q"}\n', r"train\.jsonl:1: no text in column 'answer'"),
            (json.dumps(ROW) + '\n{"answer": "#### 1"}\n', r"train\.jsonl:2: no text in column 'question'"),
            (json.dumps(ROW) + "\n\nnot json\n", r"train\.jsonl:3: not JSON"),
            ('{"question": "q", "answer": "4"}\n', r"train\.jsonl:1: column 'answer' has no '####"),
            ("[1]\n", r"train\.jsonl:1: no text in column 'question'"),
        ],
    )
    def test_bad_rows_are_named_by_file_and_line(self, tmp_path, text, message):
        write(tmp_path / "train.jsonl", text=text)
        with pytest.raises(UserError, match=message):
            list(prompts("train", path=tmp_path))

    def test_truncated_gzip(self, tmp_path):
        path = write(tmp_path / "train.jsonl.gz", *[ROW] * 50)
        path.write_bytes(path.read_bytes()[:-20])
        with pytest.raises(UserError, match=r"train\.jsonl\.gz:\d+: cannot be read"):
            list(prompts("train", path=tmp_path))

    def test_not_parquet(self, tmp_path):
        (tmp_path / "x.parquet").write_text("x")
        with pytest.raises(UserError, match="not a parquet file"):
            list(prompts("train", path=tmp_path / "x.parquet"))

    def test_missing_places(self, tmp_path):
        with pytest.raises(UserError, match=r"has no test\.jsonl"):
            list(prompts("test", path=tmp_path))
        with pytest.raises(UserError, match="no such file"):
            list(prompts("test", path=tmp_path / "x.jsonl"))
        with pytest.raises(UserError, match="should end with"):
            list(prompts("test", path=write(tmp_path / "x.csv", text="a")))

    def test_bad_row_of_a_single_file_is_reported_in_both_splits(self, tmp_path):
        path = write(tmp_path / "x.jsonl", {"answer": "#### 1"})
        for split in ("train", "test"):
            with pytest.raises(UserError, match=r"x\.jsonl:1: no text in column 'question'"):
                list(prompts(split, path=path))

    def test_unknown_split(self, tmp_path):
        with pytest.raises(ValueError, match="'train' or 'test'"):
            prompts("valid", path=tmp_path)
