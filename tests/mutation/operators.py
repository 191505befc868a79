"""Mutations beside those of cosmic-ray: swapped modalities, dropped arguments, skipped calls, deleted statements.

A mutation operator lists the places of a syntax node that it can change, and changes one of them.
"""

from collections.abc import Iterator

from cosmic_ray.operators.operator import Example, Operator
from parso.python.tree import Name, PythonNode
from parso.tree import NodeOrLeaf

Position = tuple[tuple[int, int], tuple[int, int]]

PAIRS = (
    ("audio", "visual"),
    ("audible", "visible"),
    ("any", "all"),
    ("sum", "mean"),
    ("min", "max"),
    ("amin", "amax"),
    ("argmin", "argmax"),
    ("minimum", "maximum"),
    ("floor", "ceil"),
    ("sigmoid", "tanh"),
    ("zeros", "ones"),
    ("train", "val"),
)
NAMESPACES = ("self", "torch", "F", "np", "nn", "math")  # what stands before a function's name and is no value
SPEED_AND_CHECKS = ("non_blocking", "strict", "frozen")  # arguments that change no result
OTHER_NAME = dict(PAIRS) | {second: first for first, second in PAIRS}


class SwapNames(Operator):
    """`audio` becomes `visual`, `any` becomes `all`, and so on."""

    def mutation_positions(self, node: NodeOrLeaf) -> Iterator[Position]:
        if node.type == "name" and node.value in OTHER_NAME:
            yield node.start_pos, node.end_pos

    def mutate(self, node: Name, index: int) -> Name:
        return Name(OTHER_NAME[node.value], node.start_pos, prefix=node.prefix)

    @classmethod
    def examples(cls) -> tuple[Example, ...]:
        return (Example("x = pair.audio.sum(dim=1)", "x = pair.visual.sum(dim=1)"),)


class SkipCalls(Operator):
    """`f(x, y)` and `x.f(y)` become `x`."""

    def mutation_positions(self, node: NodeOrLeaf) -> Iterator[Position]:
        if _input_of_call(node):
            yield node.start_pos, node.end_pos

    def mutate(self, node: PythonNode, index: int) -> Name:
        return Name(_input_of_call(node), node.start_pos, prefix=node.get_first_leaf().prefix)

    @classmethod
    def examples(cls) -> tuple[Example, ...]:
        return (Example("x = self.norm(x + y, 2)", "x = (x + y)"), Example("x = y.z.clamp(0, 1)", "x = y.z"))


class DropArguments(Operator):
    """`f(x, y=z)` becomes `f(x)`."""

    def mutation_positions(self, node: NodeOrLeaf) -> Iterator[Position]:
        for argument in _named_arguments(node):
            yield argument.start_pos, argument.end_pos

    def mutate(self, node: PythonNode, index: int) -> PythonNode:
        argument = _named_arguments(node)[index]
        place = node.children.index(argument)
        del node.children[max(place - 1, 0) : place + 1 + (place == 0)]
        return node

    @classmethod
    def examples(cls) -> tuple[Example, ...]:
        return (Example("f(x, y=1, z=2)", "f(x, z=2)"), Example("f(y=1, z=2)", "f( z=2)"))


class DeleteStatements(Operator):
    """A call whose value nobody takes, `x += y` and `x[i] = y` become `pass`."""

    def mutation_positions(self, node: NodeOrLeaf) -> Iterator[Position]:
        if node.type == "simple_stmt" and _has_an_effect(node.children[0]):
            yield node.start_pos, node.end_pos

    def mutate(self, node: PythonNode, index: int) -> PythonNode:
        statement = node.children[0]
        node.children[0] = Name("pass", statement.start_pos, prefix=statement.get_first_leaf().prefix)
        return node

    @classmethod
    def examples(cls) -> tuple[Example, ...]:
        return (Example("x.add_(1)\n", "pass\n"), Example("x[0] = 1\n", "pass\n"), Example("x += 1\n", "pass\n"))


OPERATORS = (SwapNames, SkipCalls, DropArguments, DeleteStatements)


def _input_of_call(node: NodeOrLeaf) -> str:
    """What a call computes with: the value whose method it is, or a function's first argument; "" if there is none."""
    if node.type != "atom_expr" or node.children[-1].type != "trailer" or node.children[-1].children[0] != "(":
        return ""
    *callee, call = node.children
    root = callee[0].get_code(include_prefix=False)
    if len(callee) > 1 and callee[-1].children[0] == "." and root not in NAMESPACES:
        return "".join(child.get_code() for child in callee[:-1]).strip()
    inside = call.children[1]
    first = inside.children[0] if inside.type == "arglist" else inside
    is_plain = first.type not in ("argument", "operator")
    return f"({first.get_code(include_prefix=False)})" if is_plain else ""


def _named_arguments(node: NodeOrLeaf) -> list[PythonNode]:
    if node.type != "arglist":
        return []
    named = [child for child in node.children if child.type == "argument" and child.children[1] == "="]
    return [argument for argument in named if argument.children[0].value not in SPEED_AND_CHECKS]


def _has_an_effect(statement: NodeOrLeaf) -> bool:
    if statement.type == "expr_stmt":
        is_augmented = statement.children[1].type in ("operator", "augassign") and statement.children[1] != "="
        target = statement.children[0]
        return is_augmented or (target.type == "atom_expr" and target.children[-1].children[0] == "[")
    return statement.type == "atom_expr"
