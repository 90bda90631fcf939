// Preloaded into a program of a node: its wall clock is GPUQUOTA_CLOCK_OFF seconds off; other clocks are as they are.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <time.h>

int clock_gettime(clockid_t clock, struct timespec *now) {
    static int (*real)(clockid_t, struct timespec *);
    if (!real) real = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    int told = real(clock, now);
    const char *off = getenv("GPUQUOTA_CLOCK_OFF");
    if (told == 0 && off && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) now->tv_sec += atol(off);
    return told;
}
