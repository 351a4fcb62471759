/* A library to preload: what one shared object asks of the system fails when a test says so, and is counted.
 * It answers malloc, calloc, realloc, aligned_alloc, pthread_create and pthread_setspecific, and knows the shared
 * object by the return address.  glibc's own functions have the names __libc_*. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>

void *__libc_malloc(size_t);
void *__libc_calloc(size_t, size_t);
void *__libc_realloc(void *, size_t);
void *__libc_memalign(size_t, size_t);
void __libc_free(void *);

/* ---- what a test sets and reads through ctypes: requests that are counted from 1 */

static atomic_ulong start, end;               /* the code of the shared object */
static atomic_long first = 1, last = 0;       /* the requests that fail */
static atomic_int only_threads;               /* whether pthread_create alone fails, and is counted */
static atomic_long requests, refused, blocks; /* blocks: those of the shared object that are not freed */

void watch(unsigned long from, unsigned long to) {
  start = from;
  end = to;
}

void refuse(long from, long to, int threads_alone) {
  requests = refused = 0;
  only_threads = threads_alone;
  first = from;
  last = to;
}

long requested(void) { return requests; }
long refusals(void) { return refused; }
long live_blocks(void) { return blocks; }

/* ---- the blocks of the shared object, wherever they are freed */

enum { MOST = 4096 };
static void *kept[MOST];
static atomic_flag lock = ATOMIC_FLAG_INIT;

static void replace(void *old, void *new) {
  while (atomic_flag_test_and_set(&lock));
  for (int i = 0; i < MOST; i++) {
    if (kept[i] != old) continue;
    kept[i] = new;
    blocks += (new != NULL) - (old != NULL);
    break;
  }
  atomic_flag_clear(&lock);
}

static void *note(void *block) {
  if (block) replace(NULL, block);
  return block;
}

static void forget(void *block) {
  if (block && blocks) replace(block, NULL);
}

/* ---- the functions */

#define IS_WATCHED ((uintptr_t)__builtin_return_address(0) - start < end - start)

static int is_refused(int thread) {
  if (only_threads && !thread) return 0;
  const long number = ++requests;
  const int fails = number >= first && number <= last;
  refused += fails;
  return fails;
}

static void *no_memory(void) {
  errno = ENOMEM;
  return NULL;
}

void *malloc(size_t bytes) {
  if (!IS_WATCHED) return __libc_malloc(bytes);
  return is_refused(0) ? no_memory() : note(__libc_malloc(bytes));
}

void *calloc(size_t count, size_t bytes) {
  if (!IS_WATCHED) return __libc_calloc(count, bytes);
  return is_refused(0) ? no_memory() : note(__libc_calloc(count, bytes));
}

void *realloc(void *old, size_t bytes) {
  const int watched = IS_WATCHED;
  if (watched && is_refused(0)) return no_memory();
  forget(old);
  void *block = __libc_realloc(old, bytes);
  return watched ? note(block) : block;
}

void *aligned_alloc(size_t alignment, size_t bytes) {
  if (!IS_WATCHED) return __libc_memalign(alignment, bytes);
  return is_refused(0) ? no_memory() : note(__libc_memalign(alignment, bytes));
}

void free(void *block) {
  forget(block);
  __libc_free(block);
}

int pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*run)(void *), void *argument) {
  static int (*real)(pthread_t *, const pthread_attr_t *, void *(*)(void *), void *);
  if (IS_WATCHED && is_refused(1)) return EAGAIN;
  if (!real) *(void **)&real = dlsym(RTLD_NEXT, "pthread_create");
  return real(thread, attributes, run, argument);
}

int pthread_setspecific(pthread_key_t key, const void *value) {
  static int (*real)(pthread_key_t, const void *);
  if (IS_WATCHED && is_refused(0)) return ENOMEM;
  if (!real) *(void **)&real = dlsym(RTLD_NEXT, "pthread_setspecific");
  return real(key, value);
}
