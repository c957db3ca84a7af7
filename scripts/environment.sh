# Sourced by the other scripts: goes to the project's root and activates its virtual environment (.venv), which
# is made, and filled from requirements.txt, when it is missing or out of date.
#   PYTHON=/path/to/python   the interpreter to make it with (default: the first of python3, 3.12, 3.11, 3.10 that fits)
#   MINDSPORE=2.7.2          another version of MindSpore than the newest that requirements.txt allows

cd "$(dirname "${BASH_SOURCE[0]}")/.."

fits() { # a Python that runs (pyenv's shims may not), of a version that MindSpore has wheels for, able to make a venv
    "$1" -c 'import sys, venv, ensurepip; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 12))' 2>/dev/null
}

find_python() {
    local candidate
    for candidate in ${PYTHON:-python3 python3.12 python3.11 python3.10 python}; do
        if fits "$candidate"; then
            command -v "$candidate"
            return
        fi
    done
    echo "error: found no Python 3.10, 3.11 or 3.12 with the venv module; install one, or name it: PYTHON=/path/to/python" >&2
    return 2
}

make_environment() {
    local wanted python
    wanted=$(cat requirements.txt pyproject.toml; echo "$PWD ${MINDSPORE:-}")
    if [ -x .venv/bin/python ] && [ "$(cat .venv/installed 2>/dev/null)" = "$wanted" ]; then
        return
    fi
    if [ ! -x .venv/bin/python ] || ! fits .venv/bin/python; then
        python=$(find_python)
        echo "making .venv with $python ($("$python" --version 2>&1))"
        rm -rf .venv
        "$python" -m venv .venv
    fi
    echo "installing requirements.txt into .venv (about 1 GB to download at the first time)"
    .venv/bin/python -m pip install --quiet --disable-pip-version-check \
        -r requirements.txt ${MINDSPORE:+"mindspore==$MINDSPORE"}
    # Where this checkout's package is, seen from there: in the C locale, Python does not start with an accent in it.
    printf '../../../../src\n' | tee .venv/lib/python3*/site-packages/__editable__.mindghost-*.pth >/dev/null
    printf '%s\n' "$wanted" >.venv/installed
}

make_environment
# shellcheck disable=SC1091
. .venv/bin/activate
