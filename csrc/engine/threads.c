#include "engine/threads.h"

#include <stdatomic.h>
#include <stdlib.h>

#include "api/abi.h"
#include "engine/os.h"
#include "engine/sizes.h"
#include "engine/team.h"
#include "engine/workspace.h"

/* Below this work a second thread costs more than it brings.  bench/tuning: min-work-per-thread */
#define MIN_WORK_PER_THREAD 65536

/* Back-off after a slow fork-join.  The kernel sometimes schedules two threads of a team on one core, where they wait
 * for each other for milliseconds.  If a parallel region took SLOW_NANOSECONDS longer than the sum of its threads'
 * work, calls from this thread run serially for BACKOFF_FACTOR the time lost, at most MAX_BACKOFF_NANOSECONDS, unless
 * their work is MAX_BACKOFF_WORK or more.  A team that is always slow then costs a tenth of the time.  bench/tuning:
 * back-off
 */
#define SLOW_NANOSECONDS 1000000
#define BACKOFF_FACTOR 10
#define MAX_BACKOFF_NANOSECONDS 1000000000
#define MAX_BACKOFF_WORK ((int64_t)1 << 28)

static _Thread_local int64_t backoff_until; /* in nanoseconds */

/* The first number of OMP_NUM_THREADS, or 0. */
static int asked_threads(void) {
  const char *text = getenv("OMP_NUM_THREADS");
  const long asked = text ? strtol(text, NULL, 10) : 0;
  return asked < 1 || asked > 1024 ? 0 : (int)asked;
}

int fa_max_threads(void) {
  static _Atomic int threads;
  if (!threads) threads = asked_threads() ? asked_threads() : os_cpus();
  return threads;
}

int threads_for(int requested, int64_t work) {
  requested &= ~FA_REPRODUCIBLE;
  int64_t most = requested > 0 ? requested : fa_max_threads();
  int64_t useful = work / MIN_WORK_PER_THREAD;
  if (useful < most) most = useful;
  return most <= 1 || (work < MAX_BACKOFF_WORK && os_nanoseconds() < backoff_until) ? 1 : (int)most;
}

/* Tasks in equal shares. */
struct shared {
  int64_t tasks;
  int threads;
  void (*run)(void *context, int64_t task);
  void *context;
  atomic_llong worked; /* nanoseconds of all threads */
};

static void run_share(void *context, int part) {
  struct shared *s = context;
  const int64_t began = os_nanoseconds();
  for (int64_t task = part_start(s->tasks, s->threads, part); task < part_start(s->tasks, s->threads, part + 1); task++)
    s->run(s->context, task);
  atomic_fetch_add(&s->worked, os_nanoseconds() - began);
}

void share_tasks(int64_t tasks, int threads, void (*run)(void *context, int64_t task), void *context) {
  if (threads == 1) { /* no parallel region, whose start takes time.  bench/tuning: team-of-one */
    for (int64_t task = 0; task < tasks; task++) run(context, task);
    return;
  }
  struct shared s = {tasks, threads, run, context, 0};
  const int64_t started = os_nanoseconds();
  run_team(threads, run_share, &s);
  const int64_t ended = os_nanoseconds(), lost = ended - started - s.worked;
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
