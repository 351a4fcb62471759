#include "engine/team.h"

#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>

#include "engine/os.h"

/* A thread that waits looks again and again for SPIN_NANOSECONDS, a worker then for YIELD_NANOSECONDS between threads
 * that want its CPU, before it sleeps.  A sleeper takes 5 to 50 us to wake, and Linux may wake it on the CPU of the
 * caller, which therefore sleeps early.  With more threads than CPUs nobody looks.  bench/tuning: spin-nanoseconds */
#define SPIN_NANOSECONDS 50000
#define YIELD_NANOSECONDS 3000000

/* A worker that wakes on the caller's CPU moves to another one, at most once in this time.  Linux may leave it
 * there, and the two would run in turn.  bench/tuning: spin-nanoseconds */
#define MOVE_NANOSECONDS 1000000

/* A pointer that one thread sends and another one waits for. */
struct mailbox {
  _Alignas(64) _Atomic(void *) letter; /* NULL until it is sent */
  atomic_int asleep;                   /* whether the receiver may wait for `arrived` */
  os_mutex lock;
  os_condition arrived;
};

struct region {
  void (*run)(void *context, int part);
  void *context;
  int cpu;               /* the caller's, or -1 */
  atomic_int unfinished; /* parts of workers */
};

static struct region leave_region; /* sent to a worker that has to end */

struct worker {
  struct mailbox inbox; /* regions to work on, then leave_region */
  struct os_thread thread;
  struct team *team;
  int part;
};

struct team {
  struct mailbox finished; /* the region whose last part has ended */
  struct worker **workers; /* (count), in memory for `places` */
  int count, places;
  int forks;        /* os_forks() where the workers are */
  atomic_int spins; /* whether threads look before they sleep */
  atomic_int users; /* the caller and the workers: the last one frees the team */
};

static void pause_cpu(void) {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  __asm__ volatile("isb"); /* yield takes no time on most CPUs */
#endif
}

static void make_mailbox(struct mailbox *box) {
  os_make_mutex(&box->lock);
  os_make_condition(&box->arrived);
}

static void send(struct mailbox *box, void *letter) {
  atomic_store(&box->letter, letter);
  if (!atomic_load(&box->asleep)) return;
  os_lock(&box->lock);
  os_wake_all(&box->arrived);
  os_unlock(&box->lock);
}

/* Waits for a letter and takes it out: busily for `spin` nanoseconds, then for `yield`, then asleep. */
static void *receive(struct mailbox *box, int64_t spin, int64_t yield) {
  void *letter;
  int64_t waited = 0;
  for (const int64_t began = os_nanoseconds();
       !(letter = atomic_load_explicit(&box->letter, memory_order_acquire)) && waited < spin + yield;
       waited = os_nanoseconds() - began) {
    if (waited < spin)
      pause_cpu();
    else
      os_yield();
  }
  if (!letter) {
    os_lock(&box->lock);
    atomic_store(&box->asleep, 1);
    while (!(letter = atomic_load(&box->letter))) os_wait(&box->arrived, &box->lock);
    atomic_store(&box->asleep, 0);
    os_unlock(&box->lock);
  }
  atomic_store_explicit(&box->letter, NULL, memory_order_relaxed);
  return letter;
}

static void leave(struct team *team) {
  if (atomic_fetch_sub(&team->users, 1) > 1) return;
  for (int i = 0; i < team->count; i++) os_free(team->workers[i]);
  free(team->workers);
  os_free(team);
}

static void work(void *argument) {
  struct worker *worker = argument;
  struct team *team = worker->team;
  int64_t may_move = 0;
  for (;;) {
    const int spins = atomic_load(&team->spins);
    struct region *region = receive(&worker->inbox, spins ? SPIN_NANOSECONDS : 0, spins ? YIELD_NANOSECONDS : 0);
    if (region == &leave_region) break;
    if (region->cpu >= 0 && region->cpu == os_cpu() && os_nanoseconds() > may_move) {
      os_leave_cpu(region->cpu);
      may_move = os_nanoseconds() + MOVE_NANOSECONDS;
    }
    region->run(region->context, worker->part);
    /* the region is gone when its last part has been reported */
    if (atomic_fetch_sub(&region->unfinished, 1) == 1) send(&team->finished, region);
  }
  leave(team);
}

/* Starts workers until there are `wanted`, or the system refuses one. */
static void grow(struct team *team, int wanted) {
  if (wanted > team->places) {
    struct worker **workers = realloc(team->workers, (size_t)wanted * sizeof(struct worker *));
    if (!workers) return;
    team->workers = workers;
    team->places = wanted;
  }
  while (team->count < wanted) {
    struct worker *worker = os_allocate(sizeof *worker);
    if (!worker) return;
    *worker = (struct worker){.thread = {work, worker}, .team = team, .part = team->count + 1};
    make_mailbox(&worker->inbox);
    atomic_fetch_add(&team->users, 1);
    if (os_start_thread(&worker->thread)) {
      atomic_fetch_sub(&team->users, 1);
      os_free(worker);
      return;
    }
    team->workers[team->count++] = worker;
  }
}

static os_key key;
static os_once once = OS_ONCE;
static int no_key;

static void end_team(void *value) {
  struct team *team = value;
  if (team->forks != os_forks()) return; /* its workers are in the parent */
  for (int i = 0; i < team->count; i++) send(&team->workers[i]->inbox, &leave_region);
  leave(team);
}

static void make_key(void) { no_key = os_make_key(&key, end_team); }

/* The calling thread's team, or NULL without memory.  A forked child leaves that of its parent alone, whose workers it
 * does not have. */
static struct team *own_team(void) {
  os_call_once(&once, make_key);
  if (no_key) return NULL;
  struct team *team = os_get(key);
  if (team && team->forks == os_forks()) return team;
  if (!(team = os_allocate(sizeof *team))) return NULL;
  *team = (struct team){.users = 1, .forks = os_forks()};
  make_mailbox(&team->finished);
  if (os_set(key, team)) {
    os_free(team);
    return NULL;
  }
  return team;
}

void run_team(int threads, void (*run)(void *context, int part), void *context) {
  struct team *team = threads > 1 ? own_team() : NULL;
  int workers = 0;
  if (team) {
    if (team->count < threads - 1) grow(team, threads - 1);
    workers = team->count < threads - 1 ? team->count : threads - 1;
    atomic_store(&team->spins, workers < os_cpus());
  }
  struct region region = {run, context, workers ? os_cpu() : -1, workers};
  for (int i = 0; i < workers; i++) send(&team->workers[i]->inbox, &region);
  run(context, 0);
  for (int part = workers + 1; part < threads; part++) run(context, part);
  if (workers) receive(&team->finished, team->spins ? SPIN_NANOSECONDS : 0, 0);
}
