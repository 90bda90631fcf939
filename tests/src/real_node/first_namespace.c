// Preloaded into the agent on a node of the tests, which is a container: shows it the names of its pid and cgroup namespaces as
// those of the host have them (include/linux/proc_ns.h). The fake driver tells the container's own pids, so that the node is
// a host in all that the agent reads.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <string.h>
#include <unistd.h>

static ssize_t told(const char *name, char *buffer, size_t size) {
    size_t length = strlen(name);
    if (length > size) length = size;
    memcpy(buffer, name, length);
    return (ssize_t)length;
}

ssize_t readlink(const char *path, char *buffer, size_t size) {
    if (strcmp(path, "/proc/self/ns/pid") == 0) return told("pid:[4026531836]", buffer, size);
    if (strcmp(path, "/proc/self/ns/cgroup") == 0) return told("cgroup:[4026531835]", buffer, size);
    ssize_t (*real)(const char *, char *, size_t) = dlsym(RTLD_NEXT, "readlink");
    return real(path, buffer, size);
}
