from dataset.tasks.arc.files import parse_task


def test_a_task_comes_back_as_it_was_read() -> None:
    value = {
        "test": [{"input": [[1]]}, {"input": [[2]], "output": [[3]]}],
        "train": [{"input": [[4]], "output": [[5]]}],
    }
    written = parse_task("a", value, "a.json").to_json()
    assert written == value
    assert list(written) == ["test", "train"]
