#!/bin/sh
# Stands for commonhold-bench: prints its name, the space in its environment, and its arguments.
printf '%s\n' "$0" "space=$COMMONHOLD_SPACE" "$@"
cat
exit 7
