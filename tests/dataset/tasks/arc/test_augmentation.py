import numpy as np
import pytest

from dataset.tasks.arc.augmentation import IDENTITY, Augmentation, parse_puzzle_name, puzzle_name
from utils.errors import UserError


@pytest.mark.parametrize("transform", range(8))
def test_an_augmentation_is_undone(transform: int) -> None:
    rng = np.random.default_rng(transform)
    grid = rng.integers(0, 10, (3, 5), dtype=np.uint8)
    augmentation = Augmentation(transform, "0" + "".join(map(str, rng.permutation(np.arange(1, 10)))))
    np.testing.assert_array_equal(augmentation.undo(augmentation.apply(grid)), grid)


def test_digit_i_of_a_name_is_the_image_of_colour_i() -> None:
    task, augmentation = parse_puzzle_name("007bbfb7|||t4|||0234567891")
    assert task == "007bbfb7"
    assert augmentation.apply(np.array([[0, 1, 9]], dtype=np.uint8)).tolist() == [
        [1, 2, 0]
    ]  # mirrored, then recoloured
    assert puzzle_name(task, augmentation.transform, augmentation.colours) == "007bbfb7|||t4|||0234567891"


def test_a_bare_id_is_the_task_as_it_is() -> None:
    assert parse_puzzle_name("007bbfb7") == ("007bbfb7", IDENTITY)


@pytest.mark.parametrize(
    "name", ["a|||t8|||0123456789", "a|||t1|||012345678", "a|||t1|||0123456788", "a|||b", "|||t1|||0123456789"]
)
def test_a_malformed_name_is_refused(name: str) -> None:
    with pytest.raises(UserError, match="expected a task id"):
        parse_puzzle_name(name)
