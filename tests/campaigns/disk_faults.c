/* For LD_PRELOAD: one call of write, fsync or flock on a file below FAULT_PATH fails, or each one does.

   FAULT_CALL names the call, FAULT_AT the number of the one that fails, from 1 (0: all), FAULT_ERRNO the error. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <limits.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static atomic_long count;

static int fails(const char *call, int file) {
  const char *wanted = getenv("FAULT_CALL"), *folder = getenv("FAULT_PATH");
  if (!wanted || !folder || strcmp(wanted, call) != 0) return 0;
  char link[64], path[PATH_MAX];
  snprintf(link, sizeof link, "/proc/self/fd/%d", file);
  ssize_t length = readlink(link, path, sizeof path - 1);
  if (length < 0) return 0;
  path[length] = 0;
  if (strncmp(path, folder, strlen(folder)) != 0) return 0;
  long at = atol(getenv("FAULT_AT")), now = atomic_fetch_add(&count, 1) + 1;
  if (at != 0 && at != now) return 0;
  errno = atoi(getenv("FAULT_ERRNO"));
  return 1;
}

ssize_t write(int file, const void *data, size_t size) {
  static ssize_t (*real)(int, const void *, size_t);
  if (!real) *(void **)&real = dlsym(RTLD_NEXT, "write");
  return fails("write", file) ? -1 : real(file, data, size);
}

int fsync(int file) {
  static int (*real)(int);
  if (!real) *(void **)&real = dlsym(RTLD_NEXT, "fsync");
  return fails("fsync", file) ? -1 : real(file);
}

int flock(int file, int how) {
  static int (*real)(int, int);
  if (!real) *(void **)&real = dlsym(RTLD_NEXT, "flock");
  return fails("flock", file) ? -1 : real(file, how);
}
