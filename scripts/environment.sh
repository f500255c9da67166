# Sourced by the scripts beside it: finds Python, makes the virtual environment .venv, says what is missing.
# Set PYTHON to use another interpreter, VENV for another folder.

fail() {
    echo "error: $1" >&2
    exit 1
}

find_python() {
    for candidate in ${PYTHON:-} python3.13 python3.12 python3.11 python3; do
        if command -v "$candidate" >/dev/null 2>&1 &&
            "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then
            echo "$candidate"
            return
        fi
    done
}

VENV=${VENV:-.venv}

# make_environment PACKAGE...: an environment with the packages, at the versions that were tested.
make_environment() {
    python=$(find_python)
    [ -n "$python" ] || fail "Python 3.11 or newer is needed and was not found; install it, or name one with PYTHON=..."
    if [ ! -x "$VENV/bin/python" ]; then
        "$python" -c 'import venv, ensurepip' 2>/dev/null ||
            fail "Python's venv module is missing; on Debian and Ubuntu: apt-get install python3-venv"
        echo "making the virtual environment $VENV with $("$python" --version)"
        "$python" -m venv "$VENV"
    fi
    "$VENV/bin/python" -m pip --version >/dev/null 2>&1 ||
        fail "pip is missing in $VENV; remove that folder and run this again"
    "$VENV/bin/python" -m pip install --quiet --disable-pip-version-check -c constraints.txt "$@" ||
        fail "the packages could not be installed; pip needs a package index that it can reach"
}
