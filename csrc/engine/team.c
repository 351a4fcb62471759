#include "engine/team.h"

#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>

#include "engine/os.h"

/* Looks for work before a thread sleeps: about 50 us.  A sleeper takes 5 to 50 us to wake.  With more threads than
 * CPUs nobody looks: the thread that is waited for may need the CPU. */
#define LOOKS 2000

struct region {
  void (*run)(void *context, int part);
  void *context;
  atomic_int unfinished; /* parts of workers */
};

struct worker {
  _Alignas(64) _Atomic(struct region *) region; /* that this worker has to work on, or NULL */
  struct team *team;
  int part;
};

struct team {
  os_mutex lock;
  os_condition begun, ended;
  atomic_int asleep;  /* workers that may wait for `begun` */
  atomic_int waiting; /* whether the caller may wait for `ended` */
  atomic_int leaving; /* the caller's thread has ended */
  atomic_int users;   /* the caller and the workers: the last one frees the team */
  atomic_int looks;   /* LOOKS, or 0 */
  int forks;          /* os_forks() where the workers are */
  int count, places;  /* workers that run; pointers in `workers` */
  struct worker **workers;
};

static void pause(void) {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  __asm__ volatile("yield");
#endif
}

static void leave(struct team *team) {
  if (atomic_fetch_sub(&team->users, 1) > 1) return;
  for (int i = 0; i < team->count; i++) os_free(team->workers[i]);
  free(team->workers);
  free(team);
}

/* The next region of a worker; NULL when the team is left. */
static struct region *next_region(struct worker *worker) {
  struct team *team = worker->team;
  struct region *region;
  for (int look = atomic_load(&team->looks); look > 0; look--) {
    if ((region = atomic_load_explicit(&worker->region, memory_order_acquire))) return region;
    pause();
  }
  os_lock(&team->lock);
  atomic_fetch_add(&team->asleep, 1);
  while (!(region = atomic_load(&worker->region)) && !atomic_load(&team->leaving)) os_wait(&team->begun, &team->lock);
  atomic_fetch_sub(&team->asleep, 1);
  os_unlock(&team->lock);
  return region;
}

static void work(void *argument) {
  struct worker *worker = argument;
  struct team *team = worker->team;
  for (struct region *region; (region = next_region(worker));) {
    region->run(region->context, worker->part);
    atomic_store_explicit(&worker->region, NULL, memory_order_relaxed);
    /* from here on the region may be gone */
    if (atomic_fetch_sub(&region->unfinished, 1) == 1 && atomic_load(&team->waiting)) {
      os_lock(&team->lock);
      os_wake_all(&team->ended);
      os_unlock(&team->lock);
    }
  }
  leave(team);
}

/* Starts workers until there are `wanted`; returns how many there are. */
static int grow(struct team *team, int wanted) {
  if (wanted > team->places) {
    struct worker **workers = realloc(team->workers, (size_t)wanted * sizeof(struct worker *));
    if (!workers) return team->count;
    team->workers = workers;
    team->places = wanted;
  }
  while (team->count < wanted) {
    struct worker *worker = os_allocate(sizeof *worker);
    if (!worker) break;
    *worker = (struct worker){.team = team, .part = team->count + 1};
    atomic_fetch_add(&team->users, 1);
    if (os_start_thread(work, worker)) {
      atomic_fetch_sub(&team->users, 1);
      os_free(worker);
      break;
    }
    team->workers[team->count++] = worker;
  }
  return team->count;
}

static os_key key;
static os_once once = OS_ONCE;
static int no_key;

static void end_team(void *value) {
  struct team *team = value;
  if (team->forks != os_forks()) return; /* its workers are in the parent */
  os_lock(&team->lock);
  atomic_store(&team->leaving, 1);
  os_wake_all(&team->begun);
  os_unlock(&team->lock);
  leave(team);
}

static void make_key(void) { no_key = os_make_key(&key, end_team); }

/* The calling thread's team, or NULL without memory.  A forked child leaves that of its parent alone: another thread
 * may have held its lock. */
static struct team *own_team(void) {
  os_call_once(&once, make_key);
  if (no_key) return NULL;
  struct team *team = os_get(key);
  if (team && team->forks == os_forks()) return team;
  if (!(team = malloc(sizeof *team))) return NULL;
  *team = (struct team){.users = 1, .forks = os_forks()};
  os_make_mutex(&team->lock);
  os_make_condition(&team->begun);
  os_make_condition(&team->ended);
  if (os_set(key, team)) {
    free(team);
    return NULL;
  }
  return team;
}

static void wait_for_workers(struct team *team, struct region *region) {
  for (int look = atomic_load(&team->looks); look > 0; look--) {
    if (atomic_load_explicit(&region->unfinished, memory_order_acquire) == 0) return;
    pause();
  }
  os_lock(&team->lock);
  atomic_store(&team->waiting, 1);
  while (atomic_load(&region->unfinished)) os_wait(&team->ended, &team->lock);
  atomic_store(&team->waiting, 0);
  os_unlock(&team->lock);
}

void run_team(int threads, void (*run)(void *context, int part), void *context) {
  struct team *team = threads > 1 ? own_team() : NULL;
  int workers = 0;
  if (team) {
    workers = team->count < threads - 1 ? grow(team, threads - 1) : threads - 1;
    atomic_store(&team->looks, workers < os_cpus() ? LOOKS : 0);
  }
  struct region region = {run, context, workers};
  for (int i = 0; i < workers; i++) atomic_store(&team->workers[i]->region, &region);
  if (workers && atomic_load(&team->asleep)) {
    os_lock(&team->lock);
    os_wake_all(&team->begun);
    os_unlock(&team->lock);
  }
  run(context, 0);
  for (int part = workers + 1; part < threads; part++) run(context, part);
  if (workers) wait_for_workers(team, &region);
}
