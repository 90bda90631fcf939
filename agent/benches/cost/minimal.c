/* The calls that the data needs and nothing else: those of a pass once a second, and a wait for XIDs and changes of the MIG layout beside
 * them, which no pass can tell. An agent's own work is measured against it.
 * minimal LIBRARY; the first line of its output is the number of calls of a pass. */
#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

typedef void *device;
typedef struct { unsigned version; unsigned long long total, reserved, free, used; } memory;
typedef struct { unsigned pid; unsigned long long used; unsigned gi, ci; } process;
typedef struct { unsigned pid; unsigned long long at; unsigned sm, mem, enc, dec; } sample;

typedef struct { device gpu; unsigned long long type, data; unsigned gi, ci; } happening;

#define MOST 64
/* nvmlEventTypeXidCriticalError and nvmlEventMigConfigChange. */
#define EVENTS (0x8ull | 0x100ull)
/* As long as the agent waits for one. */
#define WAIT_MS 500
#define MEMORY_V2 (sizeof(memory) | 2u << 24)

static void *library;
static long calls;

static void *find(const char *name) {
    void *found = dlsym(library, name);
    if (!found) {
        fprintf(stderr, "no %s\n", name);
        exit(1);
    }
    return found;
}

static int (*get_count)(unsigned *);
static int (*by_index)(unsigned, device *);
static int (*mig_mode)(device, unsigned *, unsigned *);
static int (*mig_by_index)(device, unsigned, device *);
static int (*get_memory)(device, memory *);
static int (*power)(device, unsigned *);
static int (*temperature)(device, int, unsigned *);
static int (*utilization)(device, unsigned *);
static int (*lists[3])(device, unsigned *, process *);
static int (*samples)(device, sample *, unsigned *, unsigned long long);

static device gpus[MOST], instances[MOST][8];
static unsigned count, parts[MOST];

static void pass(void) {
    static process holders[256];
    static sample used[256];
    unsigned number, now[2];
    calls++;
    get_count(&number);
    for (unsigned at = 0; at < count; at++) {
        memory whole = {.version = MEMORY_V2};
        unsigned held = 0;
        get_memory(gpus[at], &whole);
        power(gpus[at], &number);
        temperature(gpus[at], 0, &number);
        calls += 3;
        for (int kind = 0; kind < 3; kind++) {
            number = 256;
            if (lists[kind](gpus[at], &number, holders) == 0)
                held += number;
            calls++;
        }
        for (unsigned part = 0; part < parts[at]; part++) {
            memory own = {.version = MEMORY_V2};
            get_memory(instances[at][part], &own);
            calls++;
        }
        if (parts[at])
            continue;
        utilization(gpus[at], now);
        calls++;
        if (held) {
            number = 256;
            samples(gpus[at], used, &number, 0);
            calls++;
        }
    }
}

static void *wait_for_events(void *none) {
    int (*create)(void **) = find("nvmlEventSetCreate");
    int (*supported)(device, unsigned long long *) = find("nvmlDeviceGetSupportedEventTypes");
    int (*listen)(device, unsigned long long, void *) = find("nvmlDeviceRegisterEvents");
    int (*wait)(void *, happening *, unsigned) = find("nvmlEventSetWait_v2");
    void *set;
    happening seen;
    if (create(&set))
        exit(1);
    for (unsigned at = 0; at < count; at++) {
        unsigned long long types = 0;
        if (supported(gpus[at], &types) || listen(gpus[at], types & EVENTS, set))
            exit(1);
    }
    for (;;)
        wait(set, &seen, WAIT_MS);
    return none;
}

int main(int argc, char **argv) {
    if (argc != 2 || !(library = dlopen(argv[1], RTLD_NOW))) {
        fprintf(stderr, "minimal LIBRARY\n");
        return 1;
    }
    int (*init)(void) = find("nvmlInit_v2");
    get_count = find("nvmlDeviceGetCount_v2");
    by_index = find("nvmlDeviceGetHandleByIndex_v2");
    mig_mode = find("nvmlDeviceGetMigMode");
    mig_by_index = find("nvmlDeviceGetMigDeviceHandleByIndex");
    get_memory = find("nvmlDeviceGetMemoryInfo_v2");
    power = find("nvmlDeviceGetPowerUsage");
    temperature = find("nvmlDeviceGetTemperature");
    utilization = find("nvmlDeviceGetUtilizationRates");
    lists[0] = find("nvmlDeviceGetComputeRunningProcesses_v3");
    lists[1] = find("nvmlDeviceGetGraphicsRunningProcesses_v3");
    lists[2] = find("nvmlDeviceGetMPSComputeRunningProcesses_v3");
    samples = find("nvmlDeviceGetProcessUtilization");
    if (init() || get_count(&count) || count > MOST)
        return 1;
    for (unsigned at = 0; at < count; at++) {
        unsigned mode = 0, pending;
        if (by_index(at, &gpus[at]))
            return 1;
        mig_mode(gpus[at], &mode, &pending);
        for (unsigned slot = 0; mode && slot < 7; slot++)
            if (mig_by_index(gpus[at], slot, &instances[at][parts[at]]) == 0)
                parts[at]++;
    }
    pass();
    pthread_t events;
    if (pthread_create(&events, NULL, wait_for_events, NULL))
        return 1;
    printf("%ld\n", calls);
    fflush(stdout);
    for (;;) {
        struct timespec second = {.tv_sec = 1};
        nanosleep(&second, NULL);
        pass();
    }
}
