#include "threads.h"

#include <limits.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <time.h>
#ifdef _OPENMP
#include <omp.h>
#endif

#include "fastact_abi.h"
#include "sizes.h"

/* Below this a second thread costs more than it brings.  Two threads, the second still awake from the call before, were
 * 0.86x as fast as one over 32768 elements of relu, 0.97x over 65536, 1.8x over 131072 and 2.0x over 262144.  In a
 * forward of maxout they were 0.98x to 1.2x as fast at 262144 multiply-adds and 1.25x at 524288, but 0.5x and 0.78x
 * while it took 4 us more for one to hear from the other: the cores of a virtual machine move (Zen 5). */
#define MIN_WORK_PER_THREAD 65536

/* A team may come late.  After a pause of 20 ms Linux woke the second thread on the core of the first, where the two
 * waited for each other for 8 ms, until the load was balanced (two cores of a virtual machine); after a product of
 * NumPy's, whose threads look out for more work for 100 ms, it did so every other time.  A call of 0.05 ms took as
 * long.  So after a team that took LATE_NANOSECONDS longer than all its threads together worked, the caller works alone
 * for ALONE_TIMES as long as it lost, where that takes less than about 8 ms: a team that is always late costs a tenth.
 * (A thread that is interrupted in its work counts as working.)  A process may have been stopped meanwhile, so at most
 * for MOST_ALONE_NANOSECONDS. */
#define LATE_NANOSECONDS 1000000
#define ALONE_TIMES 10
#define MOST_ALONE_NANOSECONDS 1000000000
#define MOST_ALONE ((int64_t)1 << 28)

/* A team grows by so many threads at once: libgomp takes 140 bytes of the caller's stack for each new one. */
#define TEAM_STEP 64

/* The most scratch memory that a thread keeps: the hidden layers of a frozen model and one packed operand.  Fresh pages
 * for more take less than a call that needs them. */
#define KEPT_BYTES ((size_t)96 << 20)

static int forked;
static _Thread_local int64_t alone_until; /* in nanoseconds */
static pthread_key_t buffers_key;
static int no_key; /* an error number: the system has no more keys */
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void in_child(void) { forked = 1; }

/* Run when this library is loaded.  A child that was forked before that, of a process in which another library had used
 * OpenMP, can't be told from other processes. */
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

static int64_t nanoseconds(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (int64_t)time.tv_sec * 1000000000 + time.tv_nsec;
}

int threads_for(int requested, int64_t work) {
  if (forked || !fa_has_openmp()) return 1;
  int64_t most = requested > 0 ? requested : fa_max_threads();
  int64_t useful = work / MIN_WORK_PER_THREAD;
  if (useful < most) most = useful;
  return most <= 1 || (work < MOST_ALONE && nanoseconds() < alone_until) ? 1 : (int)most;
}

#ifdef _OPENMP
/* The caller's last team, the largest that has started, and the largest that the system allows. */
static _Thread_local int team = 1, proven = 1, most_threads = INT_MAX;

static void *pass(void *gate) {
  pthread_mutex_lock(gate);
  pthread_mutex_unlock(gate);
  return NULL;
}

/* How many of `wanted` threads can run at once: they are started, and end. */
static int startable(int wanted) {
  pthread_t *threads = malloc((size_t)wanted * sizeof *threads);
  pthread_mutex_t gate = PTHREAD_MUTEX_INITIALIZER;
  int started = 0;
  pthread_mutex_lock(&gate);
  while (threads && started < wanted && pthread_create(&threads[started], NULL, pass, &gate) == 0) started++;
  pthread_mutex_unlock(&gate);
  for (int i = 0; i < started; i++) pthread_join(threads[i], NULL);
  free(threads);
  return started;
}

/* The size of a team for `threads` tasks that can start.  libgomp ends the process where the system refuses it a thread
 * (RLIMIT_NPROC, RLIMIT_AS, the limits of a container), so the caller's first team of a size is tried out. */
static int ready_team(int threads) {
  threads = threads < most_threads ? threads : most_threads;
  if (threads > proven) {
    int wanted = threads - team, started = startable(wanted);
    if (started < wanted) most_threads = threads = team + started;
    proven = threads;
  }
  for (int size = team + TEAM_STEP; size < threads; size += TEAM_STEP) {
#pragma omp parallel num_threads(size)
    __asm__ volatile("");
  }
  return team = threads;
}
#else
static int ready_team(int threads) { return threads; }
#endif

void share_tasks(int64_t tasks, int threads, void (*run)(void *context, int64_t task), void *context) {
  if (threads > 1) threads = ready_team(threads);
  if (threads == 1) { /* a team of one takes 0.5 us to make (libgomp 12) */
    for (int64_t task = 0; task < tasks; task++) run(context, task);
    return;
  }
  int64_t started = nanoseconds(), worked = 0;
#pragma omp parallel num_threads(threads) reduction(+ : worked)
  {
    int64_t began = nanoseconds();
#pragma omp for schedule(static) nowait
    for (int64_t task = 0; task < tasks; task++) run(context, task);
    worked += nanoseconds() - began;
  }
  int64_t ended = nanoseconds(), lost = ended - started - worked;
  if (lost > LATE_NANOSECONDS) alone_until = ended + smaller(ALONE_TIMES * lost, MOST_ALONE_NANOSECONDS);
}

/* The tasks [next, end) of one thread, which others take when they have none left of their own.  So a thread comes back
 * to the part of an array that it wrote in the call before, which may be in a cache of its core alone: forward and
 * backward of (1, 1024, 1024, 2) took 495 us with one queue for both threads, and takes 181, while the two cores of a
 * virtual machine read memory at 80 GB/s, so had an L3 cache each; 220 and 177 while they read 45 GB/s (Zen 5). */
struct share {
  _Alignas(64) atomic_llong next;
  int64_t end;
};

struct queue {
  struct share *shares; /* (threads) */
  int threads;
  void (*run)(void *context, int64_t task, int64_t thread);
  void *context;
};

static void take_tasks(void *context, int64_t thread) {
  const struct queue *q = context;
  for (int64_t i = 0; i < q->threads; i++) {
    struct share *share = &q->shares[(thread + i) % q->threads];
    for (int64_t task; (task = atomic_fetch_add(&share->next, 1)) < share->end;) q->run(q->context, task, thread);
  }
}

void queue_tasks(int64_t tasks, int threads, void (*run)(void *context, int64_t task, int64_t thread), void *context) {
  struct share *shares = threads > 1 ? scratch(SCRATCH_SHARES, (size_t)threads * sizeof *shares) : NULL;
  if (!shares) { /* one thread, or no memory for several */
    for (int64_t task = 0; task < tasks; task++) run(context, task, 0);
    return;
  }
  for (int64_t i = 0; i < threads; i++) {
    atomic_init(&shares[i].next, i * tasks / threads);
    shares[i].end = (i + 1) * tasks / threads;
  }
  share_tasks(threads, threads, take_tasks, &(struct queue){shares, threads, run, context});
  release_scratch(SCRATCH_SHARES);
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

static void make_key(void) { no_key = pthread_key_create(&buffers_key, free_buffers); }

void *scratch(enum scratch_user user, size_t bytes) {
  if (pthread_once(&once, make_key) || no_key) return NULL;
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

void release_scratch(enum scratch_user user) {
  struct buffer *buffers = pthread_getspecific(buffers_key);
  size_t kept = 0;
  for (int i = 0; i < SCRATCH_USERS; i++) kept += buffers[i].bytes;
  if (kept <= KEPT_BYTES) return;
  free(buffers[user].memory);
  buffers[user] = (struct buffer){NULL, 0};
}
