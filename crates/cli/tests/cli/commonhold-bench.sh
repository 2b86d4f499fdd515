#!/bin/sh
# Stands for commonhold-bench: prints what it is called, the space of its environment, and its arguments.
printf '%s\n' "$0" "space=$COMMONHOLD_SPACE" "$@"
cat
exit 7
