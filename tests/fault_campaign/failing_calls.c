/* Preloaded into a writer: the Nth system call of one kind on files below one folder fails.
 *
 * NIGHTJAR_SHIM="KIND N HOW FOLDER MARK": KIND is open, write, fsync, rename, fallocate, ftruncate
 * or unlink; HOW is an errno, "short" (half of a write), or an errno with a "+" behind it (that one
 * and all after it); when it strikes, the file MARK is made. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <unistd.h>

static char kind[16], folder[PATH_MAX], mark[PATH_MAX], how[16];
static long nth = -1, seen = 0;

__attribute__((constructor)) static void read_job(void) {
    const char *job = getenv("NIGHTJAR_SHIM");
    if (job && sscanf(job, "%15s %ld %15s %4095s %4095s", kind, &nth, how, folder, mark) != 5) nth = -1;
}

static int below(const char *path) { return path && strncmp(path, folder, strlen(folder)) == 0; }

static int fd_below(int fd) {
    char link[64], path[PATH_MAX];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = syscall(SYS_readlinkat, AT_FDCWD, link, path, sizeof path - 1);
    if (length < 0) return 0;
    path[length] = 0;
    return below(path);
}

/* 0: go on; 1: fail with errno set; 2: do half. */
static int strikes(const char *what) {
    if (nth < 0 || strcmp(what, kind) != 0) return 0;
    long n = __sync_add_and_fetch(&seen, 1);
    if (n != nth && !(n > nth && strchr(how, '+'))) return 0;
    if (n == nth) {
        long fd = syscall(SYS_openat, AT_FDCWD, mark, O_CREAT | O_WRONLY, 0600);
        if (fd >= 0) syscall(SYS_close, fd);
    }
    if (strcmp(how, "short") == 0) return 2;
    errno = atoi(how);
    return 1;
}

#define REAL(name) \
    static __typeof__(&name) real; \
    if (!real) real = (__typeof__(&name))dlsym(RTLD_NEXT, #name)

static mode_t mode_in(int flags, va_list list) { return flags & (O_CREAT | O_TMPFILE) ? va_arg(list, mode_t) : 0; }

int open(const char *path, int flags, ...) {
    REAL(open);
    va_list list;
    va_start(list, flags);
    mode_t mode = mode_in(flags, list);
    va_end(list);
    if (below(path) && strikes("open")) return -1;
    return real(path, flags, mode);
}

int open64(const char *path, int flags, ...) {
    REAL(open64);
    va_list list;
    va_start(list, flags);
    mode_t mode = mode_in(flags, list);
    va_end(list);
    if (below(path) && strikes("open")) return -1;
    return real(path, flags, mode);
}

ssize_t write(int fd, const void *bytes, size_t length) {
    REAL(write);
    if (nth >= 0 && fd_below(fd)) {
        int strike = strikes("write");
        if (strike == 1) return -1;
        if (strike == 2 && length > 1) return real(fd, bytes, length / 2);
    }
    return real(fd, bytes, length);
}

int fsync(int fd) {
    REAL(fsync);
    if (nth >= 0 && fd_below(fd) && strikes("fsync")) return -1;
    return real(fd);
}

int rename(const char *from, const char *to) {
    REAL(rename);
    if (below(from) && strikes("rename")) return -1;
    return real(from, to);
}

int unlink(const char *path) {
    REAL(unlink);
    if (below(path) && strikes("unlink")) return -1;
    return real(path);
}

int fallocate(int fd, int mode, off_t offset, off_t length) {
    REAL(fallocate);
    if (nth >= 0 && fd_below(fd) && strikes("fallocate")) return -1;
    return real(fd, mode, offset, length);
}

int fallocate64(int fd, int mode, off64_t offset, off64_t length) {
    REAL(fallocate64);
    if (nth >= 0 && fd_below(fd) && strikes("fallocate")) return -1;
    return real(fd, mode, offset, length);
}

int ftruncate(int fd, off_t length) {
    REAL(ftruncate);
    if (nth >= 0 && fd_below(fd) && strikes("ftruncate")) return -1;
    return real(fd, length);
}

int ftruncate64(int fd, off64_t length) {
    REAL(ftruncate64);
    if (nth >= 0 && fd_below(fd) && strikes("ftruncate")) return -1;
    return real(fd, length);
}
