# Processes by pid file, for quickstart and keep.sh. Source it; POSIX sh.
#
# A pid file holds "PID START", START being the kernel's start time of that
# process: a pid that has been given to somebody else is never signalled.
# shellcheck shell=sh

# process_start PID: its start time; fails when it is gone or a zombie.
process_start()
{
    # The second field is the name, which may hold blanks and parentheses.
    process_fields=$(sed 's/.*) //' "/proc/$1/stat" 2>/dev/null) || return 1
    # shellcheck disable=SC2086 # the fields are words
    set -- $process_fields
    [ "${1:-Z}" != Z ] && echo "${20}"
}

# process_record FILE PID
process_record()
{
    echo "$2 $(process_start "$2")" >"$1.new" && mv "$1.new" "$1"
}

# process_alive FILE: sets $process_pid, if the recorded process still runs.
process_alive()
{
    process_pid=
    [ -s "$1" ] || return 1
    read -r process_pid process_recorded <"$1" || return 1
    [ "$(process_start "$process_pid")" = "$process_recorded" ] &&
        [ -n "$process_recorded" ]
}

# process_stop FILE SIGNAL SECONDS: ask, wait, then kill -9; remove FILE.
process_stop()
{
    process_ticks=$(($3 * 20))
    process_alive "$1" && kill -s "$2" "$process_pid" 2>/dev/null
    while process_alive "$1"; do
        if [ "$process_ticks" -le 0 ]; then
            kill -s KILL "$process_pid" 2>/dev/null
        fi
        process_ticks=$((process_ticks - 1))
        sleep 0.05
    done
    rm -f "$1"
}
