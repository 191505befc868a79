"""How commands end: Ctrl-C during imports, TERM, a full disk, folders that cannot be written, no environment."""

import errno
import logging
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from dataloaders.datasets import load_annotations
from dataloaders.store import open_features
from tests.tiny_runs import NETWORK, RECIPE, assert_same_weights, train
from utils.errors import InputError
from utils.files import atomic_write, claim, exclusive, write_error, write_text
from utils.run_folders import create_run_dir, open_log
from utils.training.checkpoints import load_checkpoint, save_checkpoint
from utils.training.events import write_scalars

ROOT = Path(__file__).parents[1]


def wait_for(condition: Callable[[], object], seconds: float = 60.0) -> None:
    """Poll; fails when nothing has come by then."""
    last = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < last
        time.sleep(0.02)


@contextmanager
def largest_file(num_bytes: int) -> Iterator[None]:
    """Files cannot grow beyond so many bytes, as on a disk that is full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize(("number", "word"), [(signal.SIGINT, "interrupted"), (signal.SIGTERM, "terminated")])
def test_a_command_that_still_imports_ends_with_one_line(tmp_path: Path, number: int, word: str):
    slow = "import pathlib, time\npathlib.Path(__file__).with_name('reached').touch()\ntime.sleep(60)\n"
    (tmp_path / "torch.py").write_text(slow)
    # In the background of a shell, Ctrl-C is ignored from the start.
    start = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
    start += f"import sys; sys.path[:0] = [{str(tmp_path)!r}, {str(ROOT)!r}]; import runpy; "
    start += f"runpy.run_path({str(ROOT / 'train_han.py')!r}, run_name='__main__')"
    process = subprocess.Popen([sys.executable, "-c", start], stderr=subprocess.PIPE, text=True)
    wait_for((tmp_path / "reached").exists)
    process.send_signal(number)
    assert process.communicate(timeout=60)[1] == f"\n{word}\n"
    assert process.returncode == 128 + number


def test_a_run_that_is_terminated_says_so_in_one_line_and_resumes_to_the_same_weights(llp_dir: Path, tmp_path: Path):
    flags = ("--segment_labels", "none", "--num_epochs", "60", "--checkpoint_every", "60")
    command = [sys.executable, "train_han.py", *NETWORK, *RECIPE, *flags]
    command += ["--data_dir", str(llp_dir), "--output_dir", str(tmp_path / "killed")]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "TQDM_DISABLE": "1"}
    pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen(command, cwd=ROOT, env=environment, **pipes)
    wait_for(lambda: list((tmp_path / "killed").glob("*/checkpoints/last.pt")))
    process.terminate()
    assert process.communicate(timeout=60)[1].splitlines()[-1] == "terminated"
    assert process.returncode == 128 + signal.SIGTERM
    (run,) = (tmp_path / "killed").iterdir()
    assert not (run / "summary.json").exists()
    subprocess.run([*command[:2], "--resume", str(run)], cwd=ROOT, env=environment, check=True, capture_output=True)
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        whole = train(llp_dir, tmp_path / "whole", *flags)
    finally:
        torch.set_num_threads(num_threads)
    assert_same_weights(run, whole)


def test_a_disk_that_fills_up_while_a_checkpoint_is_saved_keeps_the_old_one(tmp_path: Path):
    path = tmp_path / "last.pt"
    save_checkpoint({"epoch": 1}, path)
    with largest_file(10_000), pytest.raises(InputError, match=r"last\.pt: found no room left"):
        save_checkpoint({"weight": torch.zeros(100_000)}, path)
    assert load_checkpoint(path) == {"epoch": 1}
    assert list(tmp_path.iterdir()) == [path]


def test_a_disk_that_fills_up_while_tensorboard_events_are_written_ends_with_a_message(tmp_path: Path, capfd):
    with largest_file(3_000), pytest.raises(InputError, match="found no room left"):
        for step in range(1_000):
            write_scalars(tmp_path, {f"score_{n}": 1.0 for n in range(20)}, step)
    assert "Traceback" not in capfd.readouterr().err


def test_a_disk_that_fills_up_while_the_log_is_written_ends_with_a_message(tmp_path: Path):
    log = open_log(tmp_path)
    with largest_file(3_000), pytest.raises(InputError, match=r"log\.txt: found no room left"):
        for _ in range(1_000):
            log.info("a line")
    logging.getLogger(str(tmp_path)).handlers.clear()


@pytest.mark.parametrize(
    ("number", "words"),
    [(errno.EROFS, "Read-only file system"), (errno.EACCES, "Permission denied"), (errno.ENOSPC, "no room left")],
)
def test_what_the_system_says_of_a_folder_is_in_the_message_with_the_way_out(number: int, words: str):
    message = str(write_error(Path("x/y"), OSError(number, os.strerror(number)), "Name another --packed_dir."))
    assert "x/y: found" in message and words in message and "--packed_dir" in message


def test_a_file_where_a_folder_should_be_is_named_by_everything_that_writes(tmp_path: Path):
    file = tmp_path / "file"
    file.touch()
    for write in (
        lambda: atomic_write(file / "x.pt").__enter__(),
        lambda: exclusive(file).__enter__(),
        lambda: claim(file, ""),
        lambda: create_run_dir(file, "HAN"),
    ):
        with pytest.raises(InputError, match=r"file.*: found (Not a directory|File exists)"):
            write()


def test_a_packed_folder_that_cannot_be_written_names_its_flag(llp_dir: Path, tmp_path: Path):
    (tmp_path / "packed").mkdir()
    (tmp_path / "packed/.lock").mkdir()
    with pytest.raises(InputError, match=r"\.lock: found Is a directory; .*--packed_dir"):
        open_features(load_annotations("LLP", llp_dir, "val"), ["clip"], llp_dir, tmp_path / "packed")


def clone(tmp_path: Path) -> Path:
    """The scripts of the repository without an environment, and a `python3` that says that it is another."""
    folder = tmp_path / "clone"
    (folder / "scripts").mkdir(parents=True)
    for name in ("python.sh", "environment.sh", "train_han.sh"):
        (folder / "scripts" / name).write_text((ROOT / "scripts" / name).read_text())
    (folder / "requirements.txt").write_text("")
    (folder / "train_han.py").write_text("import sys\nprint('trained by', sys.prefix)\n")
    return folder


def run_script(folder: Path, name: str, path: str, *flags: str, **variables: str) -> subprocess.CompletedProcess:
    environment = {"PATH": path, "HOME": str(folder)} | variables
    command = ["bash", str(folder / "scripts" / name), *flags]
    return subprocess.run(command, env=environment, capture_output=True, text=True)


def test_a_script_continues_a_run_with_the_settings_of_the_run_alone(tmp_path: Path):
    folder = clone(tmp_path)
    (folder / "train_han.py").write_text("import sys\nprint(*sys.argv[1:])\n")
    python = str(Path(sys.executable).parent)
    options = {"VIRTUAL_ENV": sys.prefix}
    assert (
        run_script(folder, "train_han.sh", f"{python}:/usr/bin:/bin", "--resume", "RUN", **options).stdout
        == "--resume RUN\n"
    )
    assert "--data_dir data/LLP" in run_script(folder, "train_han.sh", f"{python}:/usr/bin:/bin", **options).stdout


def fake_environment(folder: Path, script: str) -> str:
    """Make `.venv/bin/python` a shell script before the real Python; returns the PATH with it."""
    python = folder / ".venv/bin/python"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\n{script}\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    return f"{python.parent}:/usr/bin:/bin"


def test_requirements_are_also_installed_into_the_active_environment_of_the_repository(tmp_path: Path):
    folder = clone(tmp_path)
    path = fake_environment(folder, '[ "$2" = pip ] && exit 0')
    assert "Installing" in run_script(folder, "environment.sh", path, VIRTUAL_ENV=str(folder / ".venv")).stdout
    used = run_script(folder, "environment.sh", path, VIRTUAL_ENV=sys.prefix).stdout
    assert used == f"Using the active environment {sys.prefix}; it must have the packages of requirements.txt\n"


def test_an_environment_without_pip_is_used_as_it_is(tmp_path: Path):
    folder = clone(tmp_path)
    path = fake_environment(folder, '[ "$2" = pip ] && exit 1')
    files = {"VIRTUAL_ENV": str(folder / ".venv"), "REQUIREMENTS": "requirements.txt other.txt"}
    used = run_script(folder, "environment.sh", path, **files).stdout
    assert used.endswith("it must have the packages of requirements.txt, other.txt\n")
    assert (folder / ".venv/bin/python").exists()


def test_an_error_is_printed_though_nobody_reads_the_output(tmp_path: Path):
    program = "from utils.entry_point import run_entry_point\nfrom utils.errors import InputError\n"
    program += (
        "def main():\n    print('x')\n    raise InputError('here', 'this', 'that', 'Mend it.')\nrun_entry_point(main)"
    )
    (tmp_path / "program.py").write_text(program)
    command = f"(sleep 1; PYTHONUNBUFFERED= PYTHONPATH={ROOT} {sys.executable} {tmp_path / 'program.py'}) | true"
    done = subprocess.run(["bash", "-c", command], cwd=ROOT, capture_output=True, text=True)
    assert "error: here: found this; expected that. Mend it." in done.stderr


def test_output_that_nobody_reads_to_its_end_is_no_error():
    command = f"{sys.executable} test_han.py --help | head -1"
    done = subprocess.run(["bash", "-c", command], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.startswith("usage: test_han.py") and done.stderr == ""


def test_a_script_without_an_environment_says_in_one_line_how_to_make_it(tmp_path: Path):
    folder, bare = clone(tmp_path), "/usr/bin:/bin"
    done = run_script(folder, "train_han.sh", bare)
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1
    assert "found no PyTorch" in done.stderr and "scripts/environment.sh" in done.stderr


def test_a_script_takes_the_environment_of_the_repository(tmp_path: Path):
    folder = clone(tmp_path)
    (folder / ".venv/bin").mkdir(parents=True)
    (folder / ".venv/bin/python").symlink_to(sys.executable)
    (folder / ".venv/pyvenv.cfg").write_text("home = /usr/bin\n")
    site = Path(torch.__file__).parents[1]
    packages = folder / f".venv/lib/python{sys.version_info[0]}.{sys.version_info[1]}/site-packages"
    packages.mkdir(parents=True)
    (packages / "torch").symlink_to(site / "torch")
    done = run_script(folder, "train_han.sh", "/usr/bin:/bin")
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"trained by {folder}/.venv\n"


def test_an_old_python_is_refused_before_an_environment_is_made(tmp_path: Path):
    folder = clone(tmp_path)
    (tmp_path / "bin").mkdir()
    old = tmp_path / "bin/python3"
    old.write_text('#!/bin/sh\n[ "$1" = --version ] && echo Python 3.8.10\nexit 1\n')
    old.chmod(0o755)
    done = run_script(folder, "environment.sh", f"{old.parent}:/usr/bin:/bin")
    assert done.returncode == 2
    assert "found Python 3.8.10; expected Python 3.11 or newer" in done.stderr
    assert not (folder / ".venv").exists()


def test_an_environment_that_does_not_work_is_made_anew(tmp_path: Path):
    folder = clone(tmp_path)
    (folder / ".venv/bin").mkdir(parents=True)
    broken = folder / ".venv/bin/python"
    broken.write_text("#!/bin/sh\nexit 1\n")
    broken.chmod(0o755)
    (folder / ".venv/requirements.txt.cksum").write_text("as if installed")
    run_script(folder, "environment.sh", f"{Path(sys.executable).resolve().parent}:/usr/bin:/bin")
    asked = subprocess.run([str(broken), "-m", "pip", "--version"], capture_output=True)
    assert asked.returncode == 0


def test_a_disk_that_fills_up_anywhere_ends_a_command_with_one_line(tmp_path: Path):
    program = "from utils.entry_point import run_entry_point\n"
    program += "def main(): raise OSError(28, 'No space left on device', '/somewhere/file')\n"
    program += "run_entry_point(main)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 2 and "no room left" in done.stderr and "Traceback" not in done.stderr


def test_a_link_that_was_planted_where_a_file_is_written_is_not_followed(tmp_path: Path):
    (tmp_path / "precious").write_text("mine")
    (tmp_path / ".file.tmp").symlink_to(tmp_path / "precious")
    write_text(tmp_path / "file", "new")
    assert (tmp_path / "precious").read_text() == "mine" and (tmp_path / "file").read_text() == "new"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "precious"]
