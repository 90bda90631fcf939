// Preloaded into a program, it lets fsync or fdatasync fail once with EIO, as after a write that a disk did not take. Later
// calls succeed, as they do on Linux although the data may be gone.
//
// GPUQUOTA_SYNC_OF     part of the path of the file whose sync fails
// GPUQUOTA_SYNC_SWITCH a file: while it is there, the next such sync takes it away and fails. When it begins with "die", the
//                      process is gone at the sync after that one, as by kill -9.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static volatile int dies;

static int fails(int fd) {
    const char *of = getenv("GPUQUOTA_SYNC_OF"), *way = getenv("GPUQUOTA_SYNC_SWITCH");
    if (!of || !way)
        return 0;
    if (dies)
        raise(SIGKILL);
    int file = open(way, O_RDONLY);
    if (file < 0)
        return 0;
    char how[4] = "", link[64], path[4096];
    ssize_t said = read(file, how, 3);
    close(file);
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0)
        return 0;
    path[length] = 0;
    if (!strstr(path, of) || unlink(way) != 0)
        return 0;
    dies = said == 3 && strcmp(how, "die") == 0;
    return 1;
}

static int sync_of(const char *name, int fd) {
    if (fails(fd)) {
        errno = EIO;
        return -1;
    }
    int (*real)(int) = (int (*)(int))dlsym(RTLD_NEXT, name);
    return real(fd);
}

int fsync(int fd) { return sync_of("fsync", fd); }

int fdatasync(int fd) { return sync_of("fdatasync", fd); }
