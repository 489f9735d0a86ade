#!/usr/bin/env bash
# Make the environment of a checkout, or bring one up to date, and say what happens meanwhile.
#
#   infra/install.sh VENV EXTRAS        such as: infra/install.sh .venv all,dev
#
# By uv from uv.lock where uv is there, else by pip with constraints.txt: the same versions either way.
# PYTHON names the interpreter of a new environment. TORCH_BACKEND=cpu takes the CPU build of torch, TORCH_BACKEND= the
# one that the package index has. By default it is cpu on Linux without a card, where the index has GPU builds only (3 GB
# that nobody would import); a pip that is set to sources of its own is left to them.
set -euo pipefail
cd "$(dirname "$0")/.."
venv=$1 extras=$2
bin=$venv/bin
torch=$(grep '^torch==' constraints.txt)
log=$(mktemp)
trap 'rm -f "$log"' EXIT
say() { printf '· %s\n' "$*"; }

# Byte code that Python writes when it first imports a module is enough: most modules never are, and theirs takes .4 GB.
# Where Python may write none it is compiled now, or every start would compile anew.
compiles() { [[ -n ${PYTHONDONTWRITEBYTECODE-} ]]; }

default_backend() {
    if [[ $(uname -s) != Linux ]] || command -v nvidia-smi >/dev/null; then
        return
    elif ! command -v uv >/dev/null && grep -Eq '(index-url|find-links)=' <<<"$("$bin/python" -m pip config list)"; then
        return
    fi
    echo cpu
}

# Every 40th package and every large download of pip's output; all of it when pip fails.
progress() {
    tee "$log" | awk '
        /^ *Collecting / && ++n % 40 == 0 { print "·   " n " packages looked up"; fflush() }
        /^ *Downloading .*\(([2-9][0-9]|[0-9]{3,})(\.[0-9]+)? MB\)/ {
            file = $2; sub(/.*\//, "", file); print "·   " file " " $(NF - 1) " " $NF; fflush() }
        /^Installing collected packages/ { print "·   installing " NF - 3 " packages"; fflush() }'
}

by_pip() {
    local compile=--compile
    compiles || compile=--no-compile
    "$bin/python" -m pip install $compile --progress-bar off --disable-pip-version-check "$@" 2>&1 | progress ||
        { cat "$log" >&2; exit 1; }
}

[[ -x $bin/python ]] || { say "new environment $venv"; "${PYTHON:-python3}" -m venv "$venv"; }
say "Playbill with the extras $extras into $venv, $("$bin/python" --version): one to three minutes, downloads apart"
backend=${TORCH_BACKEND-$(default_backend)}
if uv=$(command -v uv); then
    export VIRTUAL_ENV=$PWD/$venv UV_PROJECT_ENVIRONMENT=$venv
    if compiles; then export UV_COMPILE_BYTECODE=1; fi
    without=
    if [[ -n $backend ]]; then
        say "$torch for processors only, by uv"
        "$uv" pip install --no-deps --torch-backend "$backend" "$torch"
        # The lock has the GPU build, which would replace it.
        without=$(sed -En 's/^name = "(torch|triton|nvidia-.*|cuda-.*)"$/--no-install-package=\1/p' uv.lock)
    fi
    say "everything else by uv, from uv.lock"
    # shellcheck disable=SC2046,SC2086  # options to be split at spaces
    "$uv" sync --frozen --inexact $without $(printf -- '--extra %s ' ${extras//,/ })
else
    if [[ -n $backend ]]; then
        say "$torch for processors only: pip cannot choose a build, so uv is brought for it"
        by_pip uv
        "$bin/uv" pip install --python "$bin/python" --no-deps --torch-backend "$backend" "$torch"
    fi
    say "packages by pip, with constraints.txt"
    by_pip -c constraints.txt -e ".[$extras]"
fi
say "$(du -sh "$venv" | cut -f1) in $venv, torch $("$bin/python" -c 'from importlib.metadata import version; print(version("torch"))')"
