# Set $PYTHON to the interpreter of the active virtual or conda environment, else of .venv. All scripts source this file.
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
PYTHON=python
if [[ -z "${VIRTUAL_ENV:-}${CONDA_PREFIX:-}" ]]; then
    [[ -x "$root/.venv/bin/python" ]] && PATH="$root/.venv/bin:$PATH"
    command -v python > /dev/null || PYTHON=python3
fi
if ! "$PYTHON" -c 'import importlib.util as i, sys; sys.exit(i.find_spec("torch") is None)' 2> /dev/null; then
    active=${VIRTUAL_ENV:-${CONDA_PREFIX:-}}
    way_out="Make .venv with: bash $root/scripts/environment.sh"
    [[ -n "$active" ]] && way_out="Install them into the active environment (pip install -r $root/requirements.txt), or"
    [[ -n "$active" ]] && way_out+=" deactivate it and run: bash $root/scripts/environment.sh"
    echo "error: $(command -v "$PYTHON" || echo no Python): found no PyTorch; expected an environment with the packages" \
        "of requirements.txt. $way_out" >&2
    exit 2
fi
export PATH PYTHON
