# Sourced by the scripts that promise to run on a fresh machine: makes $PYTHON an interpreter with all requirements.
# An active virtual or conda environment is used as it is; otherwise .venv is created here, once per requirements.txt.
if [[ -n "${VIRTUAL_ENV:-}${CONDA_PREFIX:-}" ]]; then
    PYTHON=python
else
    wanted=$(cksum requirements.txt)
    if [[ "$(cat .venv/requirements.cksum 2>/dev/null)" != "$wanted" ]]; then
        echo "Installing requirements.txt into .venv"
        python3 -m venv .venv
        .venv/bin/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
        echo "$wanted" > .venv/requirements.cksum
    fi
    PATH="$PWD/.venv/bin:$PATH"
    PYTHON=python
fi
export PATH PYTHON
