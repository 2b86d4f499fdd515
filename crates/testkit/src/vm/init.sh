#!/bin/busybox sh
# The first process of a test guest: prepares the guest, and becomes the agent.
/bin/busybox --install -s /bin
export PATH=/bin HOME=/
mount -t devtmpfs none /dev
mount -t proc none /proc
mount -t sysfs none /sys
mkdir -p /dev/shm /tmp
mount -t tmpfs none /dev/shm
mount -t tmpfs none /tmp
# The serial lines depend on the machine; the command line of the kernel names them.
said() { sed -n "s/.*\<$1=\([^ ]*\).*/\1/p" /proc/cmdline; }
console=/dev/$(said console) agent=/dev/$(said commonhold.agent)
exec <"$console" >"$console" 2>&1
case " $(cat /proc/cmdline) " in
*" commonhold.shell "*)
    echo "This guest has: commonhold, guest-actor, busybox. Its end: poweroff -f"
    exec setsid cttyhack sh
    ;;
esac
stty -F "$agent" raw -echo 115200
exec guest-agent "$agent"
