# Debian packages and the build, for quickstart and check. Source it; POSIX sh.
# The caller sets $top (the source tree) and $may_install (yes or no).
# shellcheck shell=sh disable=SC2154

build_packages="autoconf automake gcc make pkg-config libc6-dev libfcgi-dev
    libzmq3-dev libcurl4-openssl-dev libcjson-dev libpq-dev libmongoc-dev
    libsqlite3-dev libinih-dev libsystemd-dev libssl-dev libidn2-dev
    libunistring-dev libcmocka-dev"
run_packages="ca-certificates curl lighttpd multiwatch postgresql procps
    python3 python3-aiohttp python3-aiosmtpd python3-pip python3-venv
    spawn-fcgi util-linux"
test_packages="apache2 apache2-utils chromium chromium-driver clang
    clang-format libapache2-mod-fcgid libclang-rt-14-dev python3-psycopg2
    python3-pymongo python3-pytest python3-selenium strace w3m wrk xz-utils"
# Whoever has Node from elsewhere has npm with it.
command -v npm >/dev/null || test_packages="$test_packages npm"

# install_packages NAME...: install those that are not here.
install_packages()
{
    if ! command -v dpkg-query >/dev/null; then
        echo "This is no Debian: I trust that these are here:" "$@"
        return 0
    fi
    # Prints a line for each that is installed.
    install_present=$(dpkg-query -W -f '${Package} ${db:Status-Status}\n' \
        "$@" 2>/dev/null | sed -n 's/ installed$//p' | sort -u)
    install_missing=
    for install_name in "$@"; do
        printf '%s\n' "$install_present" | grep -qxF "$install_name" ||
            install_missing="$install_missing $install_name"
    done
    [ -n "$install_missing" ] || return 0
    if [ "$may_install" = no ] || [ "$(id -u)" -ne 0 ]; then
        echo "Missing packages. As root: apt-get install$install_missing" >&2
        return 1
    fi
    mkdir -p "$top/build"
    install_log=$top/build/install.log
    echo "Installing$install_missing (log: $install_log)"
    # RUNLEVEL=1: what is installed must not start as a service of the system.
    # shellcheck disable=SC2086 # the names are words
    if ! { apt-get -q update && DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 \
        apt-get -q -y --no-install-recommends install $install_missing; } \
        >"$install_log" 2>&1; then
        tail -n 20 "$install_log" >&2
        return 1
    fi
}

# build BUILD_DIR LOG TARGETS...: bootstrap and configure if need be, and make.
# configure takes $configure_flags (words), which may be unset.
build()
{
    build_dir=$1 build_log=$2
    shift 2
    mkdir -p "$build_dir" "$(dirname "$build_log")"
    if [ -f "$build_dir/Makefile" ] && make -C "$build_dir" -q "$@" 2>/dev/null
    then
        return 0
    fi
    echo "Building in $build_dir (log: $build_log)"
    if ! (
        set -e
        [ -x "$top/configure" ] || "$top/bootstrap"
        if [ ! -f "$build_dir/config.status" ]; then
            # shellcheck disable=SC2086 # the flags are words
            (cd "$build_dir" && "$top/configure" -q ${configure_flags:-})
        fi
        make -C "$build_dir" -j "$(nproc)" "$@"
    ) >"$build_log" 2>&1; then
        tail -n 30 "$build_log" >&2
        echo "The build failed: $build_log" >&2
        return 1
    fi
}
