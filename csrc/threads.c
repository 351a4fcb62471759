#include "threads.h"

#include <pthread.h>
#include <stdlib.h>
#ifdef _OPENMP
#include <omp.h>
#endif

#include "fastact_abi.h"

/* Below this a second thread costs more than it brings.  Two threads, the second still awake from the call before, were
 * 0.7x as fast as one at 32768 multiply-adds in all, 1.05x at 65536, 1.2x at 131072 and 1.4x at 262144; over so many
 * elements of relu 0.86x, 0.97x, 1.8x and 2.0x. */
#define MIN_WORK_PER_THREAD 65536

static int forked;
static pthread_key_t buffers_key;
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void in_child(void) { forked = 1; }

/* Run when the library is loaded, before any thread can fork with a parallel region behind it. */
__attribute__((constructor)) static void watch_forks(void) { pthread_atfork(NULL, NULL, in_child); }

int fa_has_openmp(void) {
#ifdef _OPENMP
  return 1;
#else
  return 0;
#endif
}

int fa_max_threads(void) {
#ifdef _OPENMP
  return forked ? 1 : omp_get_max_threads();
#else
  return 1;
#endif
}

int threads_for(int requested, int64_t work) {
  if (forked || !fa_has_openmp()) return 1;
  int64_t most = requested > 0 ? requested : fa_max_threads();
  int64_t useful = work / MIN_WORK_PER_THREAD;
  if (useful < most) most = useful;
  return most > 1 ? (int)most : 1;
}

void share_tasks(int64_t tasks, int threads, void (*run)(void *context, int64_t task), void *context) {
  if (threads == 1) { /* a team of one takes 0.5 us to make (libgomp 12) */
    for (int64_t task = 0; task < tasks; task++) run(context, task);
    return;
  }
#pragma omp parallel for num_threads(threads) schedule(static)
  for (int64_t task = 0; task < tasks; task++) run(context, task);
}

struct buffer {
  void *memory;
  size_t bytes;
};

static void free_buffers(void *value) {
  struct buffer *buffers = value;
  for (int i = 0; i < SCRATCH_USERS; i++) free(buffers[i].memory);
  free(buffers);
}

static void make_key(void) { pthread_key_create(&buffers_key, free_buffers); }

void *scratch(enum scratch_user user, size_t bytes) {
  pthread_once(&once, make_key);
  struct buffer *buffers = pthread_getspecific(buffers_key);
  if (!buffers) {
    buffers = calloc(SCRATCH_USERS, sizeof *buffers);
    if (!buffers || pthread_setspecific(buffers_key, buffers)) {
      free(buffers);
      return NULL;
    }
  }
  struct buffer *buffer = &buffers[user];
  if (buffer->bytes < bytes || !buffer->memory) {
    free(buffer->memory);
    buffer->bytes = aligned(bytes + 1);
    buffer->memory = aligned_alloc(64, buffer->bytes);
    if (!buffer->memory) buffer->bytes = 0;
  }
  return buffer->memory;
}
