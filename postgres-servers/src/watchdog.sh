# Cleans up after a server as soon as standard input ends, so also when the process that started
# the server was killed. $1 is the server's directory; each line of input is the id of the process
# that runs now, or empty.
pid=
while read -r line; do pid=$line; done
if [ -n "$pid" ]; then
    kill -STOP "$pid"
    kill -KILL $(cat "/proc/$pid/task/$pid/children") "$pid"
fi
# The seventh line of this file names the shared memory that a killed server leaves behind.
shared=$(sed -n '7s/.* //p' "$1/data/postmaster.pid")
[ -z "$shared" ] || ipcrm -m "$shared"
# What was just killed may still be writing its last file.
for attempt in 1 2 3 4 5; do rm -rf "$1" && break; sleep 1; done
