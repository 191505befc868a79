"""A record of what every command and method computes, to be held against after a change that must change nothing.

    python -m tests.golden write FILE    # before the change
    python -m tests.golden check FILE    # after every step: lists what differs

FILE is `tests/golden/record.json` by default. It holds SHA-256 of weights, labels, features, predictions, tables,
figures, pages and exports of tiny runs (`runs.py`) on the CPU with one thread. Two machines, or two versions of
PyTorch, need not agree to the last bit: the record says where it was made, and `check` refuses another place. There,
write one with the code before the change. A change that is meant to move a number writes the record anew, in the same
commit.
"""

import argparse
import hashlib
import json
import os
import platform
import re
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file

RECORD = Path(__file__).parent / "record.json"
# No results, with times in them, or of encoded videos, whose bytes may differ: hidden files, packs, settings, records
# of how things were made, logs, TensorBoard, runs that a table was made from.
LEFT_OUT = re.compile(
    r"(^|/)(\.[^/]*$|packed/|packed_clips/|experiment_runs/)|(args|extraction)\.yaml$|(^|/)(provenance|videos)\.json$"
    r"|log\.txt$|output\.txt$|\.tfevents\.|tableA5"
)
NOW = "2026-01-01_00-00-00"  # in the names of run folders
TEXTS = (".csv", ".eaf", ".html", ".json", ".md", ".txt", ".vtt", ".yaml")
DATE = re.compile(r'DATE=\\?"[^"]*"')  # when an EAF file was written, also within a page
MANY = 20  # files of one folder and kind, from which on one line stands for them all; features always have one line


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=("write", "check"))
    parser.add_argument("file", type=Path, nargs="?", default=RECORD)
    arguments = parser.parse_args()
    file = arguments.file.resolve()
    os.environ["OMP_NUM_THREADS"] = "1"  # of the processes that several seeds start
    torch.set_num_threads(1)
    if arguments.action == "write":
        record = {"made on": place(), "results": results()}
        file.write_text(json.dumps(record, indent=1, sort_keys=True) + "\n")
        print(f"{sum(map(len, record['results'].values()))} results of {len(record['results'])} steps, in {file}")
        return
    expected = json.loads(file.read_text())
    if expected["made on"] != place():
        sys.exit(f"error: {file}: made on {expected['made on']}; this is {place()}. Write one before the change.")
    differences = list(compare(results(), expected["results"]))
    print("\n".join(differences) or "Nothing differs.")
    sys.exit(bool(differences))


def place() -> dict[str, str]:
    """Return what the last bits depend on."""
    versions = {"python": platform.python_version(), "torch": torch.__version__, "numpy": np.__version__}
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    models = [line.split(": ")[1] for line in lines if line.startswith("model name")]
    return versions | {"processor": models[0] if models else platform.processor()}


def results() -> dict[str, dict[str, str]]:
    """Run every step in a temporary folder. Returns the digests of the files that each has written or changed."""
    from tests.golden.runs import all_steps, prepare

    record, known = {}, {}
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        time.strftime = lambda *_: NOW
        Path("printed").mkdir()
        prepare()
        changed_files(known)
        for name, run in all_steps():
            print(name, file=sys.stderr)
            run()
            record[name] = digests(changed_files(known))
        os.chdir("/")
    return record


def changed_files(known: dict[Path, int]) -> list[Path]:
    """Return the files below the working folder that `known` does not have as they are, and add them."""
    files = {path: path.stat().st_mtime_ns for path in sorted(Path().rglob("*")) if path.is_file()}
    changed = [path for path, time in files.items() if known.get(path) != time]
    known.update(files)
    return changed


def digests(files: list[Path]) -> dict[str, str]:
    """Return a digest for each file, and one for all of a kind in a folder where there are many."""
    kinds = defaultdict(dict)
    for path in files:
        if not LEFT_OUT.search(path.as_posix()):
            kinds[path.parent, path.suffix][path.name] = digest(path)
    record = {}
    for (folder, suffix), of_kind in kinds.items():
        if len(of_kind) >= MANY or suffix == ".npy":
            record[f"{folder}/*{suffix} ({len(of_kind)})"] = sha256(json.dumps(of_kind, sort_keys=True).encode())
        else:
            record |= {f"{folder}/{name}": value for name, value in of_kind.items()}
    return record


def digest(path: Path) -> str:
    """Return the digest of a file's content: arrays without their container, text without dates."""
    if path.suffix == ".pt":
        return sha256(b"".join(tensor_bytes(torch.load(path, weights_only=True))))
    if path.suffix == ".safetensors":
        return sha256(b"".join(tensor_bytes(load_file(path))))
    if path.suffix == ".npz":
        with np.load(path) as arrays:
            return sha256(b"".join(tensor_bytes({name: arrays[name] for name in arrays.files})))
    if path.suffix in TEXTS:
        text = path.read_text(encoding="utf-8").replace(str(Path.cwd()), "")
        return sha256(DATE.sub("", text).encode())
    return sha256(path.read_bytes())


def tensor_bytes(value: object, name: str = ""):
    """Yield names, types, shapes and bytes of all arrays of a nested state, in the order of their names."""
    if isinstance(value, dict):
        for key in sorted(value, key=str):
            yield from tensor_bytes(value[key], f"{name}/{key}")
    elif isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            yield from tensor_bytes(item, f"{name}/{index}")
    elif isinstance(value, (torch.Tensor, np.ndarray)):
        array = value.detach().float().numpy() if isinstance(value, torch.Tensor) else value
        yield f"{name} {value.dtype} {tuple(value.shape)}".encode()
        yield np.ascontiguousarray(array).tobytes()


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def compare(found: dict[str, dict[str, str]], expected: dict[str, dict[str, str]]):
    """Yield a line for every result that is not as expected."""
    for step in sorted(found.keys() | expected.keys()):
        ours, theirs = found.get(step, {}), expected.get(step, {})
        for file in sorted(ours.keys() | theirs.keys()):
            if file not in ours:
                yield f"{step}: {file} is missing"
            elif file not in theirs:
                yield f"{step}: {file} is new"
            elif ours[file] != theirs[file]:
                yield f"{step}: {file} differs"


if __name__ == "__main__":
    main()
