"""Files of JSON lines after a process was killed while it wrote, and merged from several machines."""

from pathlib import Path

from scripts.gpu_report.lines import append_line, copy_new_lines, read_lines


def test_half_a_line_is_dropped(tmp_path: Path):
    path = tmp_path / "folder" / "lines.jsonl"
    append_line(path, {"n": 1})
    for half in ('{"n": 2', '{"n": 2}'):  # even a whole object does not count before its newline
        with path.open("a") as file:
            file.write(half)
        assert read_lines(path) == [{"n": 1}]
    append_line(path, {"n": 3})
    assert path.read_text() == '{"n": 1}\n{"n": 3}\n'
    assert read_lines(tmp_path / "nothing.jsonl") == []


def test_merging_adds_only_what_is_new(tmp_path: Path):
    here, there = tmp_path / "here", tmp_path / "there"
    for folder, numbers in ((here, (1, 2)), (there, (2, 3, 4))):
        for number in numbers:
            append_line(folder / "a.jsonl", {"n": number})
    append_line(there / "b.jsonl", {"n": 5})
    with (here / "a.jsonl").open("a") as file:
        file.write('{"n": 3')  # killed while it was merging
    assert copy_new_lines(there, here) == 3
    assert [line["n"] for line in read_lines(here / "a.jsonl")] == [1, 2, 3, 4]
    assert read_lines(here / "b.jsonl") == [{"n": 5}]
    assert copy_new_lines(there, here) == 0
