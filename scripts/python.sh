# Set $PYTHON to the interpreter of the active virtual or conda environment, else of .venv. All scripts source this file.
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
PYTHON=python
if [[ -z "${VIRTUAL_ENV:-}${CONDA_PREFIX:-}" ]]; then
    [[ -x "$root/.venv/bin/python" ]] && PATH="$root/.venv/bin:$PATH"
    command -v python > /dev/null || PYTHON=python3
fi
if ! "$PYTHON" -c 'import importlib.util as i, sys; sys.exit(i.find_spec("torch") is None)' 2> /dev/null; then
    echo "error: $(command -v "$PYTHON" || echo no Python): found no PyTorch; expected an environment with the packages" \
        "of requirements.txt. Activate one, or make .venv with: bash $root/scripts/environment.sh" >&2
    exit 2
fi
export PATH PYTHON
