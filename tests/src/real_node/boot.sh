#!/bin/sh
# Boots systemd as PID 1 with cgroup version 2 alone, in a container with a network of its own; ends it and takes everything
# away when standard input closes, however the test process ends.
#
#   boot.sh NAME BASE FOLDER     NAME: host name; BASE: a root file system, only read; FOLDER: empty, this node's own
#
# Says "number N" once a network is taken: the host is 10.213.N.1, the node 10.213.N.2.
set -eu
name=$1 base=$2 folder=$3

# Making a network namespace is atomic, so that two that start at once take two numbers.
number=1
until ip netns add "gpuquota-$number" 2>/dev/null; do
    number=$((number + 1))
    [ "$number" -lt 250 ] || { echo 'no network can be made' >&2; exit 1; }
done
netns=gpuquota-$number link=gq$number
group=$(awk '$3 == "cgroup2" { print $2; exit }' /proc/mounts)/gpuquota-node-$number

cleanup() {
    echo 1 >"$group/cgroup.kill" || true
    wait || true
    # The first process of the container may end after the one that is waited for.
    while grep -q '^populated 1' "$group/cgroup.events"; do sleep 0.02; done
    find "$group" -depth -type d -exec rmdir {} \; || true
    ip link delete "$link" 2>/dev/null || true
    ip netns delete "$netns" || true
    rm -rf "$folder"
}
trap cleanup EXIT
trap '' INT

mkdir "$group"
ip link add "$link" type veth peer name host0 netns "$netns"
ip address add "10.213.$number.1/30" dev "$link"
ip link set "$link" up
ip -n "$netns" link set lo up
ip -n "$netns" address add "10.213.$number.2/30" dev host0
ip -n "$netns" link set host0 up
ip -n "$netns" route add default via "10.213.$number.1"

# The mounts are in a namespace of their own and end with its processes. Without the two filters the container's systemd loads no
# device programs, and DevicePolicy= denies nothing without a word.
# shellcheck disable=SC2016
boot='
set -eu
umount -l /sys/fs/cgroup
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mount -t tmpfs -o mode=755 tmpfs "$folder"
mkdir "$folder/upper" "$folder/work" "$folder/root"
mount -t overlay -o "lowerdir=$base,upperdir=$folder/upper,workdir=$folder/work" overlay "$folder/root"
echo "$name" >"$folder/root/etc/hostname"
printf "%s\n" "127.0.0.1 localhost $name" "::1 localhost" >"$folder/root/etc/hosts"
tr -d - </proc/sys/kernel/random/uuid >"$folder/root/etc/machine-id"
# It would load modules into the kernel that all share.
ln -s /dev/null "$folder/root/etc/systemd/system/systemd-modules-load.service"
export SYSTEMD_NSPAWN_UNIFIED_HIERARCHY=1
exec systemd-nspawn --quiet --register=no --keep-unit --timezone=off --resolv-conf=off --console=pipe \
    --network-namespace-path="/run/netns/$netns" --machine="$netns" --hostname="$name" --capability=all \
    --system-call-filter=bpf --system-call-filter=@privileged -D "$folder/root" --boot systemd.unified_cgroup_hierarchy=1
'
export name base folder netns
# The group is entered before the namespace is made: it becomes the root that the container sees. systemd-nspawn takes the group of
# process 1 for that root, so that it needs a pid namespace too.
# shellcheck disable=SC2016
sh -c 'echo $$ >"$1/cgroup.procs"
    exec unshare --mount --propagation private --cgroup --pid --fork --kill-child --mount-proc sh -c "$2"' \
    sh "$group" "$boot" </dev/null >&2 &

echo "number $number"
cat >/dev/null
