/* Fault injection by system call, for tests: preloaded into a process that arms it.
 *
 * Calls that touch files under one folder are counted. The one whose number is asked for fails:
 * the process is killed before or after it, it returns an error, or it writes half of what it was
 * given. Nothing else in the process is changed. See server.py, which drives it.
 *
 *   cc -shared -fPIC -O1 -o inject.so inject.c -ldl
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

enum { COUNT, KILL_BEFORE, KILL_AFTER, FAIL, FAIL_FROM_HERE, SHORT };

static char root[PATH_MAX];
static int kind = COUNT, error_number = EIO, armed = 0, trace = -1;
static long wanted = -1, counted = 0;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

void fault_arm(const char *folder, long number, int what, int error, int trace_to) {
    snprintf(root, sizeof root, "%s/", folder);
    wanted = number, kind = what, error_number = error, trace = trace_to, counted = 0, armed = 1;
}
void fault_disarm(void) { armed = 0; }
long fault_count(void) { return counted; }

static int inside(const char *path) {
    size_t length = strlen(root);
    return strncmp(path, root, length) == 0 ||
           (strncmp(path, root, length - 1) == 0 && path[length - 1] == 0);
}
static int path_inside(int folder, const char *path) {
    char base[PATH_MAX], whole[2 * PATH_MAX];
    if (!armed || !path) return 0;
    if (path[0] == '/') return inside(path);
    if (folder == AT_FDCWD) {
        if (!getcwd(base, sizeof base)) return 0;
    } else {
        char link[64];
        snprintf(link, sizeof link, "/proc/self/fd/%d", folder);
        ssize_t size = readlink(link, base, sizeof base - 1);
        if (size < 0) return 0;
        base[size] = 0;
    }
    snprintf(whole, sizeof whole, "%s/%s", base, path);
    return inside(whole);
}
static int file_inside(int descriptor) {
    char link[64], path[PATH_MAX];
    if (!armed) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
    ssize_t size = readlink(link, path, sizeof path - 1);
    if (size < 0) return 0;
    path[size] = 0;
    return inside(path);
}
/* What shall happen to this call: COUNT is nothing. */
static int next_call(const char *name, const char *path) {
    pthread_mutex_lock(&lock);
    long number = counted++;
    pthread_mutex_unlock(&lock);
    if (trace >= 0) {
        char line[2 * PATH_MAX];
        int size = snprintf(line, sizeof line, "%ld %s %s\n", number, name, path ? path : "");
        syscall(SYS_write, trace, line, size);
    }
    if (kind != FAIL_FROM_HERE) return number == wanted ? kind : COUNT;
    /* A full disk: whatever needs room fails from there on, reading goes on. */
    int needs_room = !strcmp(name, "write") || !strcmp(name, "truncate") ||
                     !strcmp(name, "mkdir") || !strcmp(name, "create");
    return wanted >= 0 && number >= wanted && needs_room ? kind : COUNT;
}
static void die(void) { kill(getpid(), SIGKILL); }

#define REAL(name)                           \
    static __typeof__(name) *real = NULL;                                            \
    if (!real) real = (__typeof__(name) *)dlsym(RTLD_NEXT, #name)

/* Run a call, or what shall happen instead. */
#define GUARD(type, failed, what, path, call)                                        \
    int fate = next_call(what, path);                                                \
    if (fate == KILL_BEFORE) die();                                                  \
    if (fate == FAIL || fate == FAIL_FROM_HERE) { errno = error_number; return failed; }\
    type result = (call);                                                            \
    if (fate == KILL_AFTER) die();                                                   \
    return result

#define OPENS(flags) ((flags) & (O_CREAT | O_TRUNC) ? "create" : "open")

#define OPEN(name)                                                                   \
    int name(const char *path, int flags, ...) {                                     \
        va_list rest; va_start(rest, flags); int mode = va_arg(rest, int); va_end(rest);\
        REAL(name);                                                                  \
        if (!path_inside(AT_FDCWD, path)) return real(path, flags, mode);            \
        GUARD(int, -1, OPENS(flags), path, real(path, flags, mode));                 \
    }
OPEN(open)
OPEN(open64)

#define OPENAT(name)                                                                 \
    int name(int folder, const char *path, int flags, ...) {                         \
        va_list rest; va_start(rest, flags); int mode = va_arg(rest, int); va_end(rest);\
        REAL(name);                                                                  \
        if (!path_inside(folder, path)) return real(folder, path, flags, mode);      \
        GUARD(int, -1, OPENS(flags), path, real(folder, path, flags, mode));         \
    }
OPENAT(openat)
OPENAT(openat64)

FILE *fopen64(const char *path, const char *mode) {
    REAL(fopen64);
    if (!path_inside(AT_FDCWD, path)) return real(path, mode);
    GUARD(FILE *, NULL, *mode == 'r' ? "open" : "create", path, real(path, mode));
}
FILE *fopen(const char *path, const char *mode) {
    REAL(fopen);
    if (!path_inside(AT_FDCWD, path)) return real(path, mode);
    GUARD(FILE *, NULL, *mode == 'r' ? "open" : "create", path, real(path, mode));
}
DIR *opendir(const char *path) {
    REAL(opendir);
    if (!path_inside(AT_FDCWD, path)) return real(path);
    GUARD(DIR *, NULL, "open", path, real(path));
}

#define WRITE(name, parameters, arguments, whole, half)                              \
    ssize_t name parameters {                                                        \
        REAL(name);                                                                  \
        if (!file_inside(descriptor)) return real arguments;                         \
        int fate = next_call("write", NULL);                                         \
        if (fate == KILL_BEFORE) die();                                              \
        if (fate == FAIL || fate == FAIL_FROM_HERE) { errno = error_number; return -1; }\
        ssize_t result = fate == SHORT && size > 1 ? half : whole;                   \
        if (fate == KILL_AFTER) die();                                               \
        return result;                                                               \
    }
WRITE(write, (int descriptor, const void *data, size_t size), (descriptor, data, size),
      real(descriptor, data, size), real(descriptor, data, size / 2))
WRITE(pwrite, (int descriptor, const void *data, size_t size, off_t offset),
      (descriptor, data, size, offset), real(descriptor, data, size, offset),
      real(descriptor, data, size / 2, offset))
WRITE(pwrite64, (int descriptor, const void *data, size_t size, off64_t offset),
      (descriptor, data, size, offset), real(descriptor, data, size, offset),
      real(descriptor, data, size / 2, offset))

#define ON_FILE(type, name, what, parameters, arguments)                             \
    type name parameters {                                                           \
        REAL(name);                                                                  \
        if (!file_inside(descriptor)) return real arguments;                         \
        GUARD(type, -1, what, NULL, real arguments);                                 \
    }
ON_FILE(ssize_t, read, "read", (int descriptor, void *data, size_t size), (descriptor, data, size))
ON_FILE(ssize_t, pread, "read", (int descriptor, void *data, size_t size, off_t offset),
        (descriptor, data, size, offset))
ON_FILE(ssize_t, pread64, "read", (int descriptor, void *data, size_t size, off64_t offset),
        (descriptor, data, size, offset))
ON_FILE(ssize_t, preadv, "read", (int descriptor, const struct iovec *parts, int count, off_t offset),
        (descriptor, parts, count, offset))
ON_FILE(ssize_t, preadv64, "read",
        (int descriptor, const struct iovec *parts, int count, off64_t offset),
        (descriptor, parts, count, offset))
ON_FILE(int, fsync, "fsync", (int descriptor), (descriptor))
ON_FILE(int, fdatasync, "fsync", (int descriptor), (descriptor))
ON_FILE(int, ftruncate, "truncate", (int descriptor, off_t size), (descriptor, size))
ON_FILE(int, ftruncate64, "truncate", (int descriptor, off64_t size), (descriptor, size))

#define ON_PATH(name, what, parameters, arguments, folder, path)                     \
    int name parameters {                                                            \
        REAL(name);                                                                  \
        if (!path_inside(folder, path)) return real arguments;                       \
        GUARD(int, -1, what, path, real arguments);                                  \
    }
ON_PATH(rename, "rename", (const char *from, const char *to), (from, to), AT_FDCWD, to)
ON_PATH(renameat, "rename", (int a, const char *from, int b, const char *to), (a, from, b, to), b, to)
ON_PATH(renameat2, "rename", (int a, const char *from, int b, const char *to, unsigned flags),
        (a, from, b, to, flags), b, to)
ON_PATH(link, "link", (const char *from, const char *to), (from, to), AT_FDCWD, to)
ON_PATH(linkat, "link", (int a, const char *from, int b, const char *to, int flags),
        (a, from, b, to, flags), b, to)
ON_PATH(unlink, "unlink", (const char *path), (path), AT_FDCWD, path)
ON_PATH(unlinkat, "unlink", (int folder, const char *path, int flags), (folder, path, flags), folder, path)
ON_PATH(mkdir, "mkdir", (const char *path, mode_t mode), (path, mode), AT_FDCWD, path)
ON_PATH(rmdir, "rmdir", (const char *path), (path), AT_FDCWD, path)
ON_PATH(chmod, "chmod", (const char *path, mode_t mode), (path, mode), AT_FDCWD, path)
