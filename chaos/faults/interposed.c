/* Comes between a process and its C library, by LD_PRELOAD, and lies about the disk and the wall clock.
 *
 * What to say stands in a page that the process shares with whoever commands it: CHAOS_CONTROL names the file. While
 * the page is all zero, everything is as without it. Only files below CHAOS_DISK fail, and only what writes to them.
 * The layout of the page is that of chaos/faults/interposer.py.
 *
 * ftruncate is left alone: a file may be made smaller on a full disk. Times of the monotonic clock are never changed.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

struct control {
    volatile int64_t write_errno;   /* what a write fails with; 0: it does not */
    volatile int64_t sync_errno;    /* what fsync and fdatasync fail with */
    volatile int64_t sync_delay_ms; /* how long they take longer */
    volatile int64_t clock_step_ns; /* what the wall clock is ahead by */
    volatile int64_t clock_at_ns;   /* where it stands still; 0: it runs */
    volatile int64_t failures;      /* how many calls have failed, for whoever commands */
    volatile int64_t listeners;     /* how many processes have begun to read this page */
};

static const struct control nothing;
static struct control *control = (struct control *)&nothing;
static const char *disk = "";

__attribute__((constructor)) static void begin(void) {
    const char *path = getenv("CHAOS_CONTROL");
    if (getenv("CHAOS_DISK")) disk = getenv("CHAOS_DISK");
    int file = path ? open(path, O_RDWR | O_CLOEXEC) : -1;
    if (file < 0) return;
    void *page = mmap(NULL, sizeof *control, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    if (page != MAP_FAILED) {
        control = page;
        __sync_fetch_and_add(&control->listeners, 1);
    }
    close(file);
}

static int is_on_disk(int file) {
    char name[64], path[PATH_MAX];
    snprintf(name, sizeof name, "/proc/self/fd/%d", file);
    ssize_t length = readlink(name, path, sizeof path - 1);
    return *disk && length > 0 && !strncmp(path, disk, strlen(disk));
}

static int fails(int64_t error, int file) {
    if (!error || !is_on_disk(file)) return 0;
    __sync_fetch_and_add(&control->failures, 1);
    errno = (int)error;
    return 1;
}

/* In short steps: a disk that is well again does not keep anybody waiting. */
static void wait_long(int file) {
    if (!control->sync_delay_ms || !is_on_disk(file)) return;
    __sync_fetch_and_add(&control->failures, 1);
    for (int64_t waited_ms = 0; waited_ms < control->sync_delay_ms; waited_ms += 20) {
        struct timespec step = {0, 20 * 1000000};
        while (nanosleep(&step, &step) && errno == EINTR) continue;
    }
}

#define REAL(name) ({ static __typeof__(&name) real; if (!real) real = dlsym(RTLD_NEXT, #name); real; })

ssize_t write(int file, const void *data, size_t size) {
    return fails(control->write_errno, file) ? -1 : REAL(write)(file, data, size);
}

ssize_t pwrite(int file, const void *data, size_t size, off_t offset) {
    return fails(control->write_errno, file) ? -1 : REAL(pwrite)(file, data, size, offset);
}

ssize_t pwrite64(int file, const void *data, size_t size, off64_t offset) {
    return fails(control->write_errno, file) ? -1 : REAL(pwrite64)(file, data, size, offset);
}

ssize_t writev(int file, const struct iovec *parts, int count) {
    return fails(control->write_errno, file) ? -1 : REAL(writev)(file, parts, count);
}

int posix_fallocate(int file, off_t offset, off_t size) {
    return fails(control->write_errno, file) ? (int)control->write_errno : REAL(posix_fallocate)(file, offset, size);
}

int fsync(int file) {
    wait_long(file);
    return fails(control->sync_errno, file) ? -1 : REAL(fsync)(file);
}

int fdatasync(int file) {
    wait_long(file);
    return fails(control->sync_errno, file) ? -1 : REAL(fdatasync)(file);
}

static int64_t wall_ns(int64_t real_ns) {
    int64_t at_ns = control->clock_at_ns;
    return (at_ns ? at_ns : real_ns) + control->clock_step_ns;
}

int clock_gettime(clockid_t clock, struct timespec *now) {
    int code = REAL(clock_gettime)(clock, now);
    if (code || (clock != CLOCK_REALTIME && clock != CLOCK_REALTIME_COARSE)) return code;
    int64_t ns = wall_ns(now->tv_sec * INT64_C(1000000000) + now->tv_nsec);
    now->tv_sec = ns / 1000000000;
    now->tv_nsec = ns % 1000000000;
    return 0;
}

int gettimeofday(struct timeval *now, void *zone) {
    struct timespec exact;
    int code = clock_gettime(CLOCK_REALTIME, &exact);
    if (zone) memset(zone, 0, sizeof(struct timezone));
    now->tv_sec = exact.tv_sec;
    now->tv_usec = exact.tv_nsec / 1000;
    return code;
}

time_t time(time_t *out) {
    struct timespec exact;
    clock_gettime(CLOCK_REALTIME, &exact);
    if (out) *out = exact.tv_sec;
    return exact.tv_sec;
}
