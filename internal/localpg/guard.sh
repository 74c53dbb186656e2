# Runs a command that must not outlive the process that started it, not even when that one is killed.
#
# $1 is a folder to remove when the command has ended (may be empty); the rest is the command.
# Fd 3 is the read end of a pipe whose write end only the starter holds: it reads as ended when the starter is gone.

folder=$1
shift

"$@" 3<&- &
child=$!

# A guard that is told to end must not leave its command behind.
trap 'kill -INT $child' HUP INT TERM

(
	trap - HUP INT TERM
	read -r nothing <&3
	# SIGINT is PostgreSQL's fast shutdown. It is sent again because a command that has only just been started
	# ignores it; to one that is shutting down already it means nothing. SIGQUIT is the immediate shutdown.
	for second in 1 2 3 4 5 6; do
		kill -INT $child || exit
		sleep 1
	done
	kill -QUIT $child
) >/dev/null 2>&1 &
exec 3<&-

# A trapped signal interrupts wait, so wait again as long as the command is there.
while
	wait $child
	status=$?
	kill -0 $child 2>/dev/null
do :; done

# The guard leads a process group of its own: this ends the watcher above, and the sleep it may be in.
trap '' HUP INT TERM
kill -TERM 0

if [ -n "$folder" ]; then
	rm -rf "$folder"
fi
exit $status
