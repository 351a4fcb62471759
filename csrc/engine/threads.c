#include "engine/threads.h"

#include <limits.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <time.h>
#ifdef _OPENMP
#include <omp.h>
#endif

#include "api/abi.h"
#include "engine/sizes.h"
#include "engine/workspace.h"

/* Below this work a second thread costs more than it brings.  bench/tuning: min-work-per-thread */
#define MIN_WORK_PER_THREAD 65536

/* Back-off after a slow fork-join.  The kernel sometimes schedules two OpenMP threads on one core, where they wait for
 * each other for milliseconds.  If a parallel region took SLOW_NANOSECONDS longer than the sum of its threads' work,
 * calls from this thread run serially for BACKOFF_FACTOR the time lost, at most MAX_BACKOFF_NANOSECONDS, unless their
 * work is MAX_BACKOFF_WORK or more.  A team that is always slow then costs a tenth of the time.  bench/tuning: back-off
 */
#define SLOW_NANOSECONDS 1000000
#define BACKOFF_FACTOR 10
#define MAX_BACKOFF_NANOSECONDS 1000000000
#define MAX_BACKOFF_WORK ((int64_t)1 << 28)

/* A team grows by at most this many threads at once: libgomp takes 140 bytes of the caller's stack for each new one. */
#define TEAM_STEP 64

static int forked;
static _Thread_local int64_t backoff_until; /* in nanoseconds */

static void in_child(void) { forked = 1; }

/* Run when the library is loaded.  A child that was forked before that, from a process in which another library had
 * used OpenMP, cannot be told from other processes. */
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
  return most <= 1 || (work < MAX_BACKOFF_WORK && nanoseconds() < backoff_until) ? 1 : (int)most;
}

#ifdef _OPENMP
/* Sizes of the caller's teams: of the last one, of the largest that has started, and of the largest that the system
 * allows. */
static _Thread_local int team = 1, proven = 1, most_threads = INT_MAX;

static void *pass(void *gate) {
  pthread_mutex_lock(gate);
  pthread_mutex_unlock(gate);
  return NULL;
}

/* The number of `wanted` threads that can run at once.  It starts them, and they end. */
static int startable(int wanted) {
  pthread_t *threads = malloc((size_t)wanted * sizeof *threads);
  if (!threads) return 0;
  pthread_mutex_t gate = PTHREAD_MUTEX_INITIALIZER;
  int started = 0;
  pthread_mutex_lock(&gate);
  while (started < wanted && pthread_create(&threads[started], NULL, pass, &gate) == 0) started++;
  pthread_mutex_unlock(&gate);
  for (int i = 0; i < started; i++) pthread_join(threads[i], NULL);
  free(threads);
  return started;
}

/* The size of a team of at most `threads` that can start.  libgomp ends the process where the system refuses it a
 * thread (RLIMIT_NPROC, RLIMIT_AS, the limits of a container), so the caller's first team of a size is tried out. */
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
  if (threads == 1) { /* no parallel region, whose start takes time.  bench/tuning: team-of-one */
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
  if (lost > SLOW_NANOSECONDS) backoff_until = ended + smaller(BACKOFF_FACTOR * lost, MAX_BACKOFF_NANOSECONDS);
}

/* The tasks [next, end) of one thread, which the others take when they have none left of their own.  A thread thus
 * comes back to the part of an array that it wrote in the call before, which may be in a cache of its core alone.
 * bench/tuning: task-shares */
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
  struct share *shares = threads > 1 ? workspace(WORKSPACE_QUEUE, (size_t)threads * sizeof *shares) : NULL;
  if (!shares) { /* one thread, or no memory for several */
    for (int64_t task = 0; task < tasks; task++) run(context, task, 0);
    return;
  }
  for (int64_t i = 0; i < threads; i++) {
    atomic_init(&shares[i].next, part_start(tasks, threads, i));
    shares[i].end = part_start(tasks, threads, i + 1);
  }
  share_tasks(threads, threads, take_tasks, &(struct queue){shares, threads, run, context});
}
