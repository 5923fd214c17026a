#!/bin/sh
# keep.sh PID_DIR NAME SIGNAL SECONDS LOG COMMAND...: run COMMAND, and again as
# soon as it ends. On SIGTERM stop it with SIGNAL, with SIGKILL after SECONDS,
# and end. Meanwhile PID_DIR/NAME.pid is COMMAND's pid file and
# PID_DIR/NAME.keeper this one's (see process.sh).
#
# COMMAND gets our standard input: under "spawn-fcgi -n -- keep.sh ..." this is
# the listening socket, which so outlives COMMAND: connections wait for the
# next one instead of being refused.
set -u
. "$(dirname "$0")/process.sh"
pid_file=$1/$2.pid
keeper_file=$1/$2.keeper
name=$2 signal=$3 seconds=$4
exec 3<&0 >>"$5" 2>&1
shift 5

stopping=no
stop()
{
    stopping=yes
}
trap stop TERM
process_record "$keeper_file" $$

while [ $stopping = no ]; do
    # A shell gives what is in the background no input, and ignores SIGINT and
    # SIGQUIT for it; COMMAND wants them.
    env --default-signal=HUP,INT,QUIT "$@" <&3 3<&- &
    child=$!
    process_record "$pid_file" "$child"
    [ $stopping = yes ] || wait "$child"
    status=$?
    [ $stopping = yes ] && break
    echo "keep.sh: $name ended with status $status, starting it again"
    sleep 0.3
done
process_stop "$pid_file" "$signal" "$seconds"
rm -f "$keeper_file"
