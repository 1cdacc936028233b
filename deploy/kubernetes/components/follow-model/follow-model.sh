#!/bin/sh
# Runs an app on a model that another container mounts.
#
#   follow-model.sh run FILE COMMAND…   waits until FILE can be read, holds it open, and runs COMMAND until that ends
#   follow-model.sh check FILE          fails when FILE is no longer the file that is open: for a livenessProbe
#
# FILE is a small file behind the model's link, such as /models/cache_hub/config.yaml. A mount that was replaced
# leaves the app with dead files: reads fail (ENOTCONN), and memory that is mapped from a file ends the app (SIGBUS).
# After a switch it still has the previous version open. Both change the path that the kernel shows for the open file:
# when the mount is gone, only the part below the mount is left. The check compares two links and reads nothing, so a
# mount that hangs cannot block it.
#
# It stays process 1 of the container, and passes SIGTERM on: the kernel ignores a signal to process 1 that has no handler
# for it, such as Python. A container that is restarted or stopped would take all of the grace period, and in a pod with a
# sidecar leave it no time to remove its mount.
set -eu
what=$1 file=$2
case $what in
    run)
        shift 2
        trap 'exit 143' TERM INT
        until [ -s "$file" ]; do sleep 1; done
        exec 9<"$file"
        "$@" &
        app=$!
        trap 'kill -TERM "$app"' TERM INT
        # A signal interrupts `wait`: the app may still be stopping.
        while :; do
            code=0
            wait "$app" || code=$?
            kill -0 "$app" 2>/dev/null || exit "$code"
        done
        ;;
    check)
        opened=$(readlink "/proc/${FOLLOWED_PID:-1}/fd/9")
        wanted=$(readlink "${file%/*}")/${file##*/}
        [ "$opened" = "$wanted" ] || { echo "the app has $opened open, wanted is $wanted"; exit 1; }
        ;;
    *) echo "follow-model.sh: run or check" >&2; exit 2 ;;
esac
