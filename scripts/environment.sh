# Set $PYTHON to an interpreter with the packages of requirements.txt, or of the files in $REQUIREMENTS. Scripts that must
# run on a fresh machine source this file; it can also be run on its own. Another active virtual or conda environment is
# used as it is; otherwise .venv is created in the repository, and each file is installed once.
if [[ "${BASH_SOURCE[0]}" == "$0" ]]; then
    set -euo pipefail
    cd "$(dirname "$0")/.."
fi
fits() { "$@" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2> /dev/null; }
active=${VIRTUAL_ENV:-${CONDA_PREFIX:-}}
needed=${REQUIREMENTS:-requirements.txt}
has_pip() { .venv/bin/python -m pip --version > /dev/null 2>&1; } # uv makes environments without
if [[ -n "$active" ]] && ! { [[ "$active" -ef .venv ]] && has_pip; }; then
    echo "Using the active environment $active; it must have the packages of ${needed// /, }"
else
    if ! { fits .venv/bin/python && has_pip; }; then
        if ! fits python3; then
            echo "error: python3: found $(python3 --version 2>&1 || true); expected Python 3.11 or newer. Install it, or" \
                "activate an environment that has it." >&2
            exit 2
        fi
        python3 -m venv --clear .venv # absent, broken or made by an older Python
    fi
    for requirements in $needed; do
        wanted=$(cksum "$requirements")
        if [[ "$(cat ".venv/$requirements.cksum" 2> /dev/null)" != "$wanted" ]]; then
            size=""
            [[ "$requirements" == requirements.txt ]] && size=" (minutes, several GB)"
            echo "Installing $requirements into .venv$size"
            .venv/bin/python -m pip install --quiet --disable-pip-version-check -r "$requirements"
            echo "$wanted" > ".venv/$requirements.cksum"
        fi
    done
fi
# shellcheck source=scripts/python.sh
source scripts/python.sh
