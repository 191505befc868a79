"""Mutation testing: draw small faults of the code at random, and see which the tests do not notice.

    python -m tests.mutation --number 250 --seed 1
    python -m tests.mutation --files baselines/leap/leap_network.py models/han.py --number 40

`subjects.yaml` says what is mutated and which tests run for it; `equivalent.yaml` explains mutants that no test can
notice. The mutants are those of cosmic-ray and of `operators.py`. Each is tried in a copy of the repository, so the
working tree stays as it is. Run the tests themselves first: one that fails without a mutant would kill every mutant.
Results are appended to `--results`; a run that was stopped goes on from there.
"""

import argparse
import json
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from difflib import ndiff
from fnmatch import fnmatch
from pathlib import Path
from queue import Queue

import cosmic_ray.plugins
import yaml
from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.mutating import mutate_code
from cosmic_ray.operators.operator import Operator
from parso.tree import NodeOrLeaf
from tqdm import tqdm

from tests.mutation.operators import OPERATORS, SPEED_AND_CHECKS

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent
# Faults that any test would notice, for instance a product of floats turned into a shift of bits.
LEFT_OUT = r"ReplaceBinaryOperator_(Add|Sub|Mul|Div)_(.Shift|Bit.*|Mod|FloorDiv|Pow)|ExceptionReplacer|RemoveDecorator"
# What is in their calls, or assigned to such a name, is words.
MESSAGES = ("InputError", "warn", "print", "info", "write", "setting", "fail", "add_argument")
PARTS_OF_MESSAGES = ("expected", "found", "listed", "shown", "way_out")


@dataclass(frozen=True)
class Mutant:
    """One changed place of one file."""

    file: str
    line: int
    operator: str
    source: str  # the whole changed file
    change: str  # the changed lines: "- old" and "+ new"

    @property
    def name(self) -> str:
        return f"{self.file}: {self.change}"


def all_operators() -> list[Operator]:
    """Return cosmic-ray's operators that need no settings, and ours."""
    classes = [cosmic_ray.plugins.get_operator(name) for name in cosmic_ray.plugins.operator_names()]
    useful = [operator for operator in classes if not re.fullmatch(LEFT_OUT, operator.__name__)]
    return [operator() for operator in (*useful, *OPERATORS) if not operator.arguments()]


def holds_words(node: NodeOrLeaf) -> bool:
    """Whether a syntax node belongs to an import, a type hint, or a message."""
    child = node
    while parent := child.parent:
        if parent.type in ("raise_stmt", "import_name", "import_from", "annassign"):
            is_value = parent.type == "annassign" and child is parent.children[-1] and len(parent.children) > 2
            if not is_value:
                return True
        if parent.type == "argument" and parent.children[0].get_code(include_prefix=False) in SPEED_AND_CHECKS:
            return True
        if parent.type == "expr_stmt" and parent.children[0].get_code(include_prefix=False) in PARTS_OF_MESSAGES:
            return True
        if parent.type == "tfpdef" or (parent.type == "funcdef" and child is parent.annotation):
            return True
        if parent.type == "param" and child is parent.name:
            return True
        if parent.type == "atom_expr" and child is parent.children[-1]:
            callee = parent.children[-2].get_code(include_prefix=False).lstrip(".")
            if callee in MESSAGES:
                return True
        child = parent
    return False


def draw(files: list[str], number: int, seed: int, operators: list[Operator]) -> Iterator[Mutant]:
    """Draw mutants: a line at random, then one of the line's mutations. No line is drawn twice."""
    places = defaultdict(list)  # (file, line) -> [(operator, occurrence)]
    sources = {file: (ROOT / file).read_text() for file in files}
    for file, source in sources.items():
        nodes = [(node, holds_words(node)) for node in ast_nodes(get_ast(source))]
        for operator in operators:
            positions = ((start[0], words) for node, words in nodes for start, _ in operator.mutation_positions(node))
            for occurrence, (line, words) in enumerate(positions):
                if not words:
                    places[file, line].append((operator, occurrence))
    chooser = random.Random(seed)
    lines = sorted(places)
    for file, line in chooser.sample(lines, min(number, len(lines))):
        operator, occurrence = chooser.choice(places[file, line])
        changed = mutate_code(sources[file], operator, occurrence)
        difference = ndiff(sources[file].splitlines(), changed.splitlines())
        change = "\n".join(row for row in difference if row[:2] in ("- ", "+ "))
        yield Mutant(file, line, type(operator).__name__, changed, change)


def copy_repository(folder: Path) -> Path:
    """Copy what git knows or could know into a folder, beside a link to what the tests look for outside."""
    copy = folder / ROOT.name
    listing = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    for name in filter(lambda name: (ROOT / name).is_file(), listing.stdout.splitlines()):
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, copy / name)
    if (shared := ROOT.parent / "shared").is_dir():
        (folder / "shared").symlink_to(shared)
    return copy


def tests_pass(copy: Path, tests: list[str], timeout: float) -> tuple[bool, str]:
    """Whether the tests pass in a copy of the repository within so many seconds, and the first test that does not."""
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-m", "not slow", "-p", "no:cacheprovider", "--tb=no"]
    command += ["-k", "not script and not demo"]  # these run whole chains of stages, and others run the same code
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"}
    present = [str(path.relative_to(copy)) for test in tests for path in sorted(copy.glob(test))]
    try:
        run = subprocess.run(
            [*command, *present], cwd=copy, env=environment, timeout=timeout, capture_output=True, text=True
        )
    except subprocess.TimeoutExpired:
        return False, "timeout"
    failed = [line for line in run.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
    return run.returncode == 0, failed[0] if failed else ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--number", type=int, default=100, help="how many mutants are drawn")
    parser.add_argument("--seed", type=int, default=0, help="which ones")
    parser.add_argument("--files", nargs="+", default=["*"], help="patterns of files, among those of subjects.yaml")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="mutants tried at the same time")
    parser.add_argument("--timeout", type=float, default=600, help="seconds after which a mutant counts as killed")
    parser.add_argument("--results", type=Path, default=Path("mutation.jsonl"), help="file of results, appended to")
    settings = parser.parse_args()

    tests_of = {}
    for subject in yaml.safe_load((HERE / "subjects.yaml").read_text()).values():
        for pattern in subject["files"]:
            for path in sorted(ROOT.glob(pattern)):
                tests_of[path.relative_to(ROOT).as_posix()] = subject["tests"]
    files = [file for file in tests_of if any(fnmatch(file, pattern) for pattern in settings.files)]
    explained = {(row["file"], row["change"].strip()) for row in yaml.safe_load((HERE / "equivalent.yaml").read_text())}

    mutants = list(draw(files, settings.number, settings.seed, all_operators()))
    rows = settings.results.read_text().splitlines() if settings.results.exists() else []
    outcomes = {row["name"]: row["outcome"] for row in map(json.loads, rows)}
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(settings.jobs) as pool:
        copies: Queue[Path] = Queue()
        for job in range(settings.jobs):
            copies.put(copy_repository(Path(folder) / str(job)))

        def attempt(mutant: Mutant) -> tuple[Mutant, str]:
            copy = copies.get()
            path = copy / mutant.file
            path.write_text(mutant.source)
            passed, failure = tests_pass(copy, tests_of[mutant.file], settings.timeout)
            shutil.copy(ROOT / mutant.file, path)
            copies.put(copy)
            return mutant, "survived" if passed else f"killed: {failure}"

        todo = [m for m in mutants if m.name not in outcomes and (m.file, m.change) not in explained]
        attempts = [pool.submit(attempt, mutant) for mutant in todo]
        for finished in tqdm(as_completed(attempts), total=len(todo), desc="mutants"):
            mutant, outcome = finished.result()
            outcomes[mutant.name] = outcome
            with settings.results.open("a") as results:
                row = {"name": mutant.name, "line": mutant.line, "operator": mutant.operator, "outcome": outcome}
                results.write(json.dumps(row) + "\n")

    survivors = [m for m in mutants if outcomes.get(m.name) == "survived"]
    equivalent = [m for m in mutants if (m.file, m.change) in explained]
    for mutant in survivors:
        print(f"\n{mutant.file}:{mutant.line} ({mutant.operator})\n{mutant.change}")
    tried = len(mutants) - len(equivalent)
    killed = tried - len(survivors)
    print(f"\n{killed} of {tried} killed ({killed / max(tried, 1):.1%}); {len(equivalent)} more are equivalent")


if __name__ == "__main__":
    main()
