"""The mutation operators of this repository make of their examples what they say."""

import pytest

pytest.importorskip("cosmic_ray", reason="pip install -r requirements-extras.txt")

from cosmic_ray.mutating import mutate_code

from tests.mutation.__main__ import all_operators, draw
from tests.mutation.operators import OPERATORS


@pytest.mark.parametrize("operator", OPERATORS)
def test_an_operator_turns_its_examples_into_the_mutants_it_shows(operator):
    for example in operator.examples():
        assert mutate_code(example.pre_mutation_code, operator(), example.occurrence) == example.post_mutation_code


def test_mutants_are_drawn_again_by_their_seed_and_no_line_twice():
    files, operators = ["utils/method/losses.py"], all_operators()
    first, again, other = (list(draw(files, 12, seed, operators)) for seed in (0, 0, 1))
    assert first == again != other
    assert len({mutant.line for mutant in first}) == 12


def test_neither_messages_nor_type_hints_are_mutated():
    for mutant in draw(["utils/method/losses.py"], 1000, 0, all_operators()):
        assert "raise ValueError" not in mutant.change and "-> " not in mutant.change
