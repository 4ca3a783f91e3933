/* Records what a program does to the files below one folder, so that a test can tell what of it a power cut leaves.
 *
 * LD_PRELOAD=recorder.so RECORD_ROOT=/folder RECORD_LOG=/file [RECORD_WITHOUT=files|folders|all] program
 *
 * One record an operation, in the order they happened: what (1 byte), handle, offset (8 each), lengths of path and data
 * (4 each), path, data; native byte order. A handle is one open of a file or folder; tests/powercut/disk.py has the other
 * end. fsync does nothing but to be recorded: the disk is a model. RECORD_WITHOUT leaves fsync out, as a program without
 * it would. What this does not understand is recorded as '!', and the replay refuses it. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#define MAX_FD 4096
#define REAL(name) ((__typeof__(&name))real(#name))

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static const char *root, *without = "";
static size_t root_length;
static int log_fd = -1;
static uint64_t handles[MAX_FD]; /* 0: not below the root */
static char is_folder[MAX_FD], is_shm[MAX_FD];
static uint64_t last_handle;

static void *real(const char *name) {
    void *found = dlsym(RTLD_NEXT, name);
    if (!found) abort();
    return found;
}

__attribute__((constructor)) static void begin(void) {
    const char *path = getenv("RECORD_LOG");
    root = getenv("RECORD_ROOT");
    if (getenv("RECORD_WITHOUT")) without = getenv("RECORD_WITHOUT");
    if (!path || !root) { root = NULL; return; }
    root_length = strlen(root);
    log_fd = syscall(SYS_openat, AT_FDCWD, path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (log_fd < 0) abort();
}

static int below(const char *path) {
    return root && path && !strncmp(path, root, root_length) && (path[root_length] == '/' || !path[root_length]);
}

static void record(char what, uint64_t handle, int64_t offset, const char *path, const void *data, uint32_t length) {
    char head[25];
    uint32_t path_length = path ? strlen(path) : 0;
    head[0] = what;
    memcpy(head + 1, &handle, 8);
    memcpy(head + 9, &offset, 8);
    memcpy(head + 17, &path_length, 4);
    memcpy(head + 21, &length, 4);
    struct iovec parts[3] = {{head, sizeof head}, {(void *)path, path_length}, {(void *)data, length}};
    ssize_t written = syscall(SYS_writev, log_fd, parts, 3);
    if (written != (ssize_t)(sizeof head + path_length + length)) abort();
}

static int known(int fd) { return fd >= 0 && fd < MAX_FD && handles[fd]; }

static void unknown(const char *what, int fd) {
    if (known(fd)) record('!', handles[fd], 0, what, NULL, 0);
}

/* --- opening */

static const char *inside(int at, const char *path, char *whole) { /* rmtree works by descriptors of folders */
    char link[64];
    if (path[0] == '/') return path;
    if (!known(at)) return path;
    snprintf(link, sizeof link, "/proc/self/fd/%d", at);
    ssize_t length = syscall(SYS_readlinkat, AT_FDCWD, link, whole, 2048);
    if (length < 0) abort();
    snprintf(whole + length, 2048, "/%s", path);
    return whole;
}

static int open_any(int folder, const char *path, int flags, mode_t mode) {
    int there, fd, saved;
    struct stat found;
    char whole[4200];
    path = inside(folder, path, whole);
    if (!below(path)) return syscall(SYS_openat, folder, path, flags, mode);
    pthread_mutex_lock(&lock);
    there = syscall(SYS_faccessat, AT_FDCWD, path, F_OK, 0) == 0;
    fd = syscall(SYS_openat, folder, path, flags, mode);
    saved = errno;
    if (fd >= MAX_FD) abort();
    if (fd >= 0) {
        fstat(fd, &found);
        handles[fd] = ++last_handle;
        is_folder[fd] = S_ISDIR(found.st_mode);
        is_shm[fd] = strlen(path) > 4 && !strcmp(path + strlen(path) - 4, "-shm");
        record(there ? 'O' : 'C', handles[fd], 0, path, NULL, 0);
        if (there && (flags & O_TRUNC)) record('T', handles[fd], 0, NULL, NULL, 0);
    }
    pthread_mutex_unlock(&lock);
    errno = saved;
    return fd;
}

#define MODE(flags) \
    mode_t mode = 0; \
    if (flags & (O_CREAT | O_TMPFILE)) { va_list rest; va_start(rest, flags); mode = va_arg(rest, int); va_end(rest); }

int open(const char *path, int flags, ...) { MODE(flags) return open_any(AT_FDCWD, path, flags, mode); }
int open64(const char *path, int flags, ...) { MODE(flags) return open_any(AT_FDCWD, path, flags | O_LARGEFILE, mode); }
int openat(int at, const char *path, int flags, ...) { MODE(flags) return open_any(at, path, flags, mode); }
int openat64(int at, const char *path, int flags, ...) { MODE(flags) return open_any(at, path, flags | O_LARGEFILE, mode); }
int creat(const char *path, mode_t mode) { return open_any(AT_FDCWD, path, O_CREAT | O_WRONLY | O_TRUNC, mode); }
int creat64(const char *path, mode_t mode) { return creat(path, mode); }

int close(int fd) {
    if (fd == log_fd && fd >= 0) { errno = EBADF; return -1; }
    if (known(fd)) {
        pthread_mutex_lock(&lock);
        handles[fd] = 0;
        pthread_mutex_unlock(&lock);
    }
    return syscall(SYS_close, fd);
}

/* --- writing */

static ssize_t wrote(int fd, const void *data, ssize_t count, off_t offset) {
    if (count > 0) record('W', handles[fd], offset, NULL, data, count);
    return count;
}

ssize_t write(int fd, const void *data, size_t length) {
    if (!known(fd)) return syscall(SYS_write, fd, data, length);
    pthread_mutex_lock(&lock);
    ssize_t count = syscall(SYS_write, fd, data, length);
    int saved = errno;
    if (count > 0) wrote(fd, data, count, syscall(SYS_lseek, fd, 0, SEEK_CUR) - count);
    pthread_mutex_unlock(&lock);
    errno = saved;
    return count;
}

ssize_t pwrite(int fd, const void *data, size_t length, off_t offset) {
    if (!known(fd)) return syscall(SYS_pwrite64, fd, data, length, offset);
    pthread_mutex_lock(&lock);
    ssize_t count = wrote(fd, data, syscall(SYS_pwrite64, fd, data, length, offset), offset);
    pthread_mutex_unlock(&lock);
    return count;
}
ssize_t pwrite64(int fd, const void *data, size_t length, off64_t offset) { return pwrite(fd, data, length, offset); }

ssize_t writev(int fd, const struct iovec *parts, int count) { unknown("writev", fd); return syscall(SYS_writev, fd, parts, count); }
ssize_t pwritev(int fd, const struct iovec *parts, int count, off_t offset) { unknown("pwritev", fd); return REAL(pwritev)(fd, parts, count, offset); }
ssize_t sendfile(int out, int in, off_t *offset, size_t count) { unknown("sendfile", out); return syscall(SYS_sendfile, out, in, offset, count); }
ssize_t sendfile64(int out, int in, off64_t *offset, size_t count) { unknown("sendfile", out); return syscall(SYS_sendfile, out, in, offset, count); }
ssize_t copy_file_range(int in, off64_t *from, int out, off64_t *to, size_t length, unsigned flags) { unknown("copy_file_range", out); return syscall(SYS_copy_file_range, in, from, out, to, length, flags); }
int dup(int fd) { unknown("dup", fd); return syscall(SYS_dup, fd); }

int ftruncate(int fd, off_t length) {
    if (!known(fd)) return syscall(SYS_ftruncate, fd, length);
    pthread_mutex_lock(&lock);
    int result = syscall(SYS_ftruncate, fd, length);
    if (result == 0) record('T', handles[fd], length, NULL, NULL, 0);
    pthread_mutex_unlock(&lock);
    return result;
}
int ftruncate64(int fd, off64_t length) { return ftruncate(fd, length); }

int posix_fallocate(int fd, off_t offset, off_t length) {
    if (!known(fd)) return REAL(posix_fallocate)(fd, offset, length);
    return ftruncate(fd, offset + length) ? errno : 0;
}
int posix_fallocate64(int fd, off64_t offset, off64_t length) { return posix_fallocate(fd, offset, length); }
int fallocate(int fd, int mode, off_t offset, off_t length) { unknown("fallocate", fd); return REAL(fallocate)(fd, mode, offset, length); }

static int sync_any(int fd, long call) {
    if (!known(fd)) return syscall(call, fd);
    if (!strcmp(without, "all") || !strcmp(without, is_folder[fd] ? "folders" : "files")) return 0;
    pthread_mutex_lock(&lock);
    record('S', handles[fd], 0, NULL, NULL, 0);
    pthread_mutex_unlock(&lock);
    return 0;
}
int fsync(int fd) { return sync_any(fd, SYS_fsync); }
int fdatasync(int fd) { return sync_any(fd, SYS_fdatasync); }
void sync(void) {
    if (!root || !strcmp(without, "all")) return;
    pthread_mutex_lock(&lock);
    record('A', 0, 0, NULL, NULL, 0);
    pthread_mutex_unlock(&lock);
}

void *mmap(void *at, size_t length, int protection, int flags, int fd, off_t offset) {
    if (known(fd) && (flags & MAP_SHARED) && (protection & PROT_WRITE) && !is_shm[fd]) unknown("mmap", fd);
    return (void *)syscall(SYS_mmap, at, length, protection, flags, fd, offset);
}
void *mmap64(void *at, size_t length, int protection, int flags, int fd, off64_t offset) { return mmap(at, length, protection, flags, fd, offset); }

/* --- folders */

#define ENTRY(call, what, path, other) \
    if (!below(path)) return call; \
    pthread_mutex_lock(&lock); \
    int result = call, saved = errno; \
    const char *second = other; \
    if (result == 0) record(what, 0, 0, path, second, second ? strlen(second) : 0); \
    pthread_mutex_unlock(&lock); \
    errno = saved; \
    return result;

int rename(const char *from, const char *to) { ENTRY((int)syscall(SYS_renameat2, AT_FDCWD, from, AT_FDCWD, to, 0), 'R', from, to) }
int renameat(int a, const char *from, int b, const char *to) { ENTRY((int)syscall(SYS_renameat2, a, from, b, to, 0), 'R', from, to) }
int renameat2(int a, const char *from, int b, const char *to, unsigned flags) { ENTRY((int)syscall(SYS_renameat2, a, from, b, to, flags), 'R', from, to) }
int unlink(const char *path) { ENTRY((int)syscall(SYS_unlinkat, AT_FDCWD, path, 0), 'U', path, NULL) }
int mkdir(const char *path, mode_t mode) { ENTRY((int)syscall(SYS_mkdirat, AT_FDCWD, path, mode), 'M', path, NULL) }
int symlinkat(const char *target, int at, const char *path) {
    char whole[4200];
    const char *full = inside(at, path, whole);
    ENTRY((int)syscall(SYS_symlinkat, target, at, path), 'L', full, target)
}
int symlink(const char *target, const char *path) { return symlinkat(target, AT_FDCWD, path); }
int rmdir(const char *path) { ENTRY((int)syscall(SYS_unlinkat, AT_FDCWD, path, AT_REMOVEDIR), 'X', path, NULL) }
int link(const char *from, const char *to) { if (below(to)) record('!', 0, 0, "link", NULL, 0); return REAL(link)(from, to); }
int truncate(const char *path, off_t length) { if (below(path)) record('!', 0, 0, "truncate", NULL, 0); return REAL(truncate)(path, length); }

int unlinkat(int at, const char *path, int flags) {
    char whole[4200];
    const char *full = inside(at, path, whole);
    ENTRY((int)syscall(SYS_unlinkat, at, path, flags), (flags & AT_REMOVEDIR) ? 'X' : 'U', full, NULL)
}
