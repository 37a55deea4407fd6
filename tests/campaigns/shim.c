/* Makes the n-th matching call of a process to libc fail, on one device of a station: LD_PRELOAD.

   A device is a directory and all below it; what is called on it is known by "device:path", with
   random names shown as "*". Every such call is written to a trace, so that a test sees what
   a pass really does, and derives from it what can be made to fail. See shim.py for the rules. */

#define _GNU_SOURCE
#undef _FILE_OFFSET_BITS
#include <ctype.h>
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

enum { NOTHING = 0, SHORT = -1, EMPTY = -2, DIE = -3, PRETEND = -4 };

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct {
  char name[32], root[PATH_MAX];
} devices[8];
static int n_devices, trace_fd = -1, rule_action;
static pid_t armed; /* not its children: one of vfork(2) shares the lock, and has no trace_fd */
static char rule_kinds[64], rule_where[PATH_MAX];
static long rule_from, rule_until, n_matching;

/* --- told by the test -------------------------------------------------------------------- */

void shim_device(const char *name, const char *root) {
  armed = getpid();
  snprintf(devices[n_devices].name, sizeof devices->name, "%s", name);
  snprintf(devices[n_devices++].root, sizeof devices->root, "%s", root);
}

void shim_trace(const char *path) {
  trace_fd = syscall(SYS_openat, AT_FDCWD, path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
}

/* Calls number `from` up to, not including, `until` of these kinds ("fsync,fdatasync" or "*") on
   this "device:path" (or "*") meet `action`: an errno, or one of the enum above. */
void shim_rule(const char *kinds, const char *where, long from, long until, int action) {
  snprintf(rule_kinds, sizeof rule_kinds, "%s", kinds);
  snprintf(rule_where, sizeof rule_where, "%s", where);
  n_matching = 0, rule_from = from, rule_until = until, rule_action = action;
}

/* The same by the environment, for a process that nobody can call into:
   SHIM_DEVICE=name=/root and SHIM_RULE="kinds where from until action". */
__attribute__((constructor)) static void from_environment(void) {
  char *device = getenv("SHIM_DEVICE"), *rule = getenv("SHIM_RULE"), *root;
  static char name[32], kinds[64], where[PATH_MAX];
  long from, until;
  int action;
  if (device && (root = strchr(device, '=')) && root - device < (long)sizeof name) {
    memcpy(name, device, root - device);
    shim_device(name, root + 1);
  }
  if (rule && sscanf(rule, "%63s %4000s %ld %ld %d", kinds, where, &from, &until, &action) == 5)
    shim_rule(kinds, where, from, until, action);
}

/* A clock that somebody has set: SHIM_CLOCK_S seconds ahead of the true one, or behind. */
int clock_gettime(clockid_t clock, struct timespec *now) {
  const char *ahead = getenv("SHIM_CLOCK_S");
  int answer = syscall(SYS_clock_gettime, clock, now);
  if (ahead && clock == CLOCK_REALTIME) now->tv_sec += atol(ahead);
  return answer;
}

/* --- which device, which path ------------------------------------------------------------ */

static int absolute(int fd, const char *path, char *out) {
  char link[64], base[PATH_MAX] = "";
  if (!path || path[0] != '/') {
    snprintf(link, sizeof link, fd == AT_FDCWD ? "/proc/self/cwd" : "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, base, sizeof base - 1);
    if (n <= 0) return 0;
    base[n] = 0;
  }
  int is_same = !path || !*path || !strcmp(path, ".");
  return snprintf(out, PATH_MAX, "%s%s%s", base, is_same || !*base ? "" : "/",
                  is_same ? "" : path) < PATH_MAX;
}

static const char *below(const char *path, const char *root) {
  size_t n = strlen(root);
  if (strncmp(path, root, n) || (path[n] && path[n] != '/')) return NULL;
  return path[n] ? path + n + 1 : "";
}

/* Random names become "*": sixteen hexadecimal digits, and whatever is in .aside. */
static void plain(const char *path, char *out) {
  size_t n = strlen(path), i = 0, o = 0;
  if (n > 10 && !strcmp(path + n - 10, " (deleted)")) n -= 10;
  while (i < n) {
    size_t run = 0;
    while (i + run < n && isxdigit((unsigned char)path[i + run])) run++;
    if (run == 16) {
      out[o++] = '*', i += run;
    } else if (run) {
      memcpy(out + o, path + i, run), o += run, i += run;
    } else {
      out[o++] = path[i++];
      if (i >= 7 && !strncmp(path + i - 7, ".aside/", 7)) out[o++] = '*', i = n;
    }
  }
  out[o] = 0;
}

static int where_is(int fd, const char *path, char *out) {
  char full[PATH_MAX], shown[PATH_MAX];
  if (!n_devices || !absolute(fd, path, full)) return 0;
  for (int i = 0; i < n_devices; i++) {
    const char *rest = below(full, devices[i].root);
    if (!rest) continue;
    plain(rest, shown);
    return snprintf(out, PATH_MAX, "%s:%s", devices[i].name, shown) < PATH_MAX;
  }
  return 0;
}

/* --- the judgement ----------------------------------------------------------------------- */

static int is_of_kind(const char *kind) {
  const char *at = rule_kinds;
  size_t n = strlen(kind);
  if (!strcmp(rule_kinds, "*")) return 1;
  while ((at = strstr(at, kind))) {
    if ((at == rule_kinds || at[-1] == ',') && (!at[n] || at[n] == ',')) return 1;
    at += n;
  }
  return 0;
}

static int judge(const char *kind, int fd, const char *path) {
  char where[PATH_MAX], line[PATH_MAX + 64];
  int before = errno, action = NOTHING;
  if (!n_devices || getpid() != armed || !where_is(fd, path, where)) return NOTHING;
  pthread_mutex_lock(&lock);
  if (*rule_kinds && is_of_kind(kind) && (!strcmp(rule_where, "*") || !strcmp(rule_where, where))) {
    n_matching++;
    if (n_matching >= rule_from && n_matching < rule_until) action = rule_action;
  }
  if (trace_fd >= 0) {
    int n = snprintf(line, sizeof line, "%s %s%s\n", kind, where, action ? " FIRED" : "");
    if (syscall(SYS_write, trace_fd, line, n) < 0) abort();
  }
  pthread_mutex_unlock(&lock);
  if (action == DIE) kill(getpid(), SIGKILL), pause();
  errno = before;
  return action;
}

#define REAL(type, name, ...)                            \
  static type (*real)(__VA_ARGS__);                      \
  if (!real) real = (type(*)(__VA_ARGS__))dlsym(RTLD_NEXT, #name)
#define FAIL_IF(kind, fd, path, failed)                  \
  int action = judge(kind, fd, path);                    \
  if (action > 0) return errno = action, failed;         \
  if (action == PRETEND) return 0

/* --- the calls --------------------------------------------------------------------------- */

#define OPEN(name)                                                          \
  int name(const char *path, int flags, ...) {                              \
    va_list more;                                                           \
    va_start(more, flags);                                                  \
    mode_t mode = flags & (O_CREAT | __O_TMPFILE) ? va_arg(more, mode_t) : 0; \
    va_end(more);                                                           \
    REAL(int, name, const char *, int, ...);                                \
    FAIL_IF(flags & O_CREAT ? "create" : flags & O_ACCMODE ? "open-w" : "open", AT_FDCWD, path, -1); \
    return real(path, flags, mode);                                         \
  }
OPEN(open)
OPEN(open64)

#define OPENAT(name)                                                        \
  int name(int dir, const char *path, int flags, ...) {                     \
    va_list more;                                                           \
    va_start(more, flags);                                                  \
    mode_t mode = flags & (O_CREAT | __O_TMPFILE) ? va_arg(more, mode_t) : 0; \
    va_end(more);                                                           \
    REAL(int, name, int, const char *, int, ...);                           \
    FAIL_IF(flags & O_CREAT ? "create" : flags & O_ACCMODE ? "open-w" : "open", dir, path, -1); \
    return real(dir, path, flags, mode);                                    \
  }
OPENAT(openat)
OPENAT(openat64)

/* A short answer is what a kernel could give: whole blocks where there are several. */
static size_t shorter(size_t n) { return n > 4096 ? (n / 2 + 4095) / 4096 * 4096 : (n + 1) / 2; }
#define SHORTEN(n)                                       \
  if (action == EMPTY) return 0;                         \
  if (action == SHORT) n = shorter(n)

ssize_t read(int fd, void *to, size_t n) {
  REAL(ssize_t, read, int, void *, size_t);
  FAIL_IF("read", fd, NULL, -1);
  SHORTEN(n);
  return real(fd, to, n);
}
#define PREAD(name)                                      \
  ssize_t name(int fd, void *to, size_t n, off64_t at) { \
    REAL(ssize_t, name, int, void *, size_t, off64_t);   \
    FAIL_IF("pread", fd, NULL, -1);                      \
    SHORTEN(n);                                          \
    return real(fd, to, n, at);                          \
  }
PREAD(pread)
PREAD(pread64)
#define PREADV2(name)                                                             \
  ssize_t name(int fd, const struct iovec *to, int count, off64_t at, int flags) { \
    REAL(ssize_t, name, int, const struct iovec *, int, off64_t, int);            \
    FAIL_IF("preadv", fd, NULL, -1);                                              \
    struct iovec first = to[0];                                                   \
    SHORTEN(first.iov_len);                                                       \
    return action == SHORT ? real(fd, &first, 1, at, flags) : real(fd, to, count, at, flags); \
  }
PREADV2(preadv2)
PREADV2(preadv64v2)

ssize_t write(int fd, const void *from, size_t n) {
  REAL(ssize_t, write, int, const void *, size_t);
  FAIL_IF("write", fd, NULL, -1);
  SHORTEN(n);
  return real(fd, from, n);
}
#define PWRITE(name)                                           \
  ssize_t name(int fd, const void *from, size_t n, off64_t at) { \
    REAL(ssize_t, name, int, const void *, size_t, off64_t);   \
    FAIL_IF("pwrite", fd, NULL, -1);                           \
    SHORTEN(n);                                                \
    return real(fd, from, n, at);                              \
  }
PWRITE(pwrite)
PWRITE(pwrite64)

#define ON_FD(name, kind)        \
  int name(int fd) {             \
    REAL(int, name, int);        \
    FAIL_IF(kind, fd, NULL, -1); \
    return real(fd);             \
  }
ON_FD(fsync, "fsync")
ON_FD(fdatasync, "fdatasync")
ON_FD(syncfs, "syncfs")

int sync_file_range(int fd, off64_t at, off64_t n, unsigned how) {
  REAL(int, sync_file_range, int, off64_t, off64_t, unsigned);
  FAIL_IF("writeout", fd, NULL, -1);
  return real(fd, at, n, how);
}

int close(int fd) {
  REAL(int, close, int);
  int flags = fcntl(fd, F_GETFL), action = NOTHING;
  if (flags >= 0 && (flags & O_ACCMODE)) action = judge("close", fd, NULL);
  int answer = real(fd); /* it is closed whatever it says */
  return action > 0 ? errno = action, -1 : answer;
}

#define FALLOCATE(name)                            \
  int name(int fd, off64_t at, off64_t n) {        \
    REAL(int, name, int, off64_t, off64_t);        \
    int action = judge("fallocate", fd, NULL);     \
    return action > 0 ? action : real(fd, at, n);  \
  }
FALLOCATE(posix_fallocate)
FALLOCATE(posix_fallocate64)

#define FTRUNCATE(name)                 \
  int name(int fd, off64_t n) {         \
    REAL(int, name, int, off64_t);      \
    FAIL_IF("ftruncate", fd, NULL, -1); \
    return real(fd, n);                 \
  }
FTRUNCATE(ftruncate)
FTRUNCATE(ftruncate64)

#define FADVISE(name)                                \
  int name(int fd, off64_t at, off64_t n, int how) { \
    REAL(int, name, int, off64_t, off64_t, int);     \
    int action = judge("fadvise", fd, NULL);         \
    if (action == PRETEND) return 0;                 \
    return action > 0 ? action : real(fd, at, n, how); \
  }
FADVISE(posix_fadvise)
FADVISE(posix_fadvise64)

#define ON_PATH(name, kind)            \
  int name(const char *path) {         \
    REAL(int, name, const char *);     \
    FAIL_IF(kind, AT_FDCWD, path, -1); \
    return real(path);                 \
  }
ON_PATH(unlink, "unlink")
ON_PATH(rmdir, "rmdir")

int unlinkat(int dir, const char *path, int flags) {
  REAL(int, unlinkat, int, const char *, int);
  FAIL_IF(flags & AT_REMOVEDIR ? "rmdir" : "unlink", dir, path, -1);
  return real(dir, path, flags);
}
int mkdir(const char *path, mode_t mode) {
  REAL(int, mkdir, const char *, mode_t);
  FAIL_IF("mkdir", AT_FDCWD, path, -1);
  return real(path, mode);
}
int mkdirat(int dir, const char *path, mode_t mode) {
  REAL(int, mkdirat, int, const char *, mode_t);
  FAIL_IF("mkdir", dir, path, -1);
  return real(dir, path, mode);
}
int link(const char *from, const char *to) {
  REAL(int, link, const char *, const char *);
  FAIL_IF("link", AT_FDCWD, to, -1);
  return real(from, to);
}
int linkat(int from_dir, const char *from, int to_dir, const char *to, int flags) {
  REAL(int, linkat, int, const char *, int, const char *, int);
  FAIL_IF("link", to_dir, to, -1);
  return real(from_dir, from, to_dir, to, flags);
}
int rename(const char *from, const char *to) {
  REAL(int, rename, const char *, const char *);
  FAIL_IF("rename", AT_FDCWD, to, -1);
  return real(from, to);
}
int renameat(int from_dir, const char *from, int to_dir, const char *to) {
  REAL(int, renameat, int, const char *, int, const char *);
  FAIL_IF("rename", to_dir, to, -1);
  return real(from_dir, from, to_dir, to);
}
int renameat2(int from_dir, const char *from, int to_dir, const char *to, unsigned flags) {
  REAL(int, renameat2, int, const char *, int, const char *, unsigned);
  FAIL_IF("rename", to_dir, to, -1);
  return real(from_dir, from, to_dir, to, flags);
}
int fchmod(int fd, mode_t mode) {
  REAL(int, fchmod, int, mode_t);
  FAIL_IF("chmod", fd, NULL, -1);
  return real(fd, mode);
}
int futimens(int fd, const struct timespec times[2]) {
  REAL(int, futimens, int, const struct timespec *);
  FAIL_IF("utimens", fd, NULL, -1);
  return real(fd, times);
}
int faccessat(int dir, const char *path, int mode, int flags) {
  REAL(int, faccessat, int, const char *, int, int);
  FAIL_IF("access", dir, path, -1);
  return real(dir, path, mode, flags);
}
int access(const char *path, int mode) {
  REAL(int, access, const char *, int);
  FAIL_IF("access", AT_FDCWD, path, -1);
  return real(path, mode);
}
int flock(int fd, int how) {
  REAL(int, flock, int, int);
  FAIL_IF("flock", fd, NULL, -1);
  return real(fd, how);
}

#define STAT(name)                                   \
  int name(const char *path, struct stat64 *to) {    \
    REAL(int, name, const char *, struct stat64 *);  \
    FAIL_IF("stat", AT_FDCWD, path, -1);             \
    return real(path, to);                           \
  }
STAT(stat64)
STAT(lstat64)
int fstat64(int fd, struct stat64 *to) {
  REAL(int, fstat64, int, struct stat64 *);
  FAIL_IF("fstat", fd, NULL, -1);
  return real(fd, to);
}
int fstatat64(int dir, const char *path, struct stat64 *to, int flags) {
  REAL(int, fstatat64, int, const char *, struct stat64 *, int);
  FAIL_IF("stat", dir, path, -1);
  return real(dir, path, to, flags);
}
int fstatvfs64(int fd, struct statvfs64 *to) {
  REAL(int, fstatvfs64, int, struct statvfs64 *);
  FAIL_IF("statvfs", fd, NULL, -1);
  return real(fd, to);
}
struct dirent64 *readdir64(DIR *dir) {
  REAL(struct dirent64 *, readdir64, DIR *);
  int action = judge("readdir", dirfd(dir), NULL);
  if (action > 0) return errno = action, NULL;
  return real(dir);
}

/* Locks of SQLite, O_DIRECT, leases: told apart by what is asked. */
int fcntl64(int fd, int command, ...) {
  va_list more;
  va_start(more, command);
  void *argument = va_arg(more, void *);
  va_end(more);
  REAL(int, fcntl64, int, int, ...);
  const char *kind = NULL;
  if (command == F_SETLK || command == F_SETLKW) kind = "lock";
  if (command == F_SETFL && ((long)argument & O_DIRECT)) kind = "direct";
  if (command == F_SETLEASE) kind = "lease";
  if (kind) {
    FAIL_IF(kind, fd, NULL, -1);
  }
  return real(fd, command, argument);
}
