"""Checksums inside of text files: damage is noticed, and files without a checksum are accepted."""

import json
from pathlib import Path

import pytest
import yaml

from utils.errors import DamagedFileError
from utils.text_checksum import check_line, check_values, with_checksum, with_checksum_line

PATH = Path("run/all_config.yaml")
TEXT = "arch:\n  layers: 2\nname: \u00e4\nseed: 10\n"
VALUES = {"sizes": [1, 2], "name": "\u00e4", "none": None, "digests": {"a": "0123"}}


def flips(text: str) -> list[str]:
    """`text` with each of its bits flipped, as far as that is UTF-8."""
    content, found = text.encode(), []
    for bit in range(8 * len(content)):
        damaged = bytearray(content)
        damaged[bit // 8] ^= 1 << bit % 8
        try:
            found.append(damaged.decode())
        except UnicodeDecodeError:
            continue
    return found


def test_no_flipped_bit_and_no_missing_part_of_yaml_is_read_as_something_else():
    whole = with_checksum_line(TEXT)
    check_line(whole, PATH)
    check_line(TEXT, PATH)
    refused = 0
    for text in [*flips(whole), *(whole[:size] for size in range(len(whole)))]:
        try:
            check_line(text, PATH)
            found = yaml.safe_load(text)
        except (DamagedFileError, yaml.YAMLError):
            refused += 1
        else:  # a bit of the checksum's name, or nothing but a part of the comment
            assert found in (yaml.safe_load(TEXT), None)
    assert refused > 500


def test_no_flipped_bit_of_json_is_read_as_something_else():
    whole = json.dumps(with_checksum(VALUES), ensure_ascii=False)
    assert check_values(json.loads(whole), PATH) == VALUES
    assert check_values(VALUES, PATH) == VALUES
    refused = 0
    for text in flips(whole):
        try:
            found = check_values(json.loads(text), PATH)
        except (DamagedFileError, ValueError):
            refused += 1
        else:  # a bit of the checksum's name
            assert {key: value for key, value in found.items() if key in VALUES} == VALUES
    assert refused > 500


@pytest.mark.parametrize("other", ["layers: 3", "layers:  2"])
def test_what_was_edited_is_refused_with_the_way_to_allow_it(other: str):
    text = with_checksum_line(TEXT).replace("layers: 2", other)
    with pytest.raises(DamagedFileError, match="damaged or was edited.*remove its first line if it is meant to be"):
        check_line(text, PATH)
    check_line(text.split("\n", 1)[1], PATH)
