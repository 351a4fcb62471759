#ifndef _WIN32
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "engine/os.h"

#define STACK_BYTES ((size_t)512 << 10) /* kernels use up to 32 KiB, sanitizers several times as much */

void *os_allocate(size_t bytes) { return aligned_alloc(64, bytes); }
void os_free(void *memory) { free(memory); }

int64_t os_nanoseconds(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (int64_t)time.tv_sec * 1000000000 + time.tv_nsec;
}

static int count_cpus(void) {
#ifdef __linux__
  for (int most = 1024; most <= 1 << 20; most *= 2) { /* a set too small for the machine is refused */
    cpu_set_t *set = CPU_ALLOC(most);
    if (!set) break;
    const size_t bytes = CPU_ALLOC_SIZE(most);
    const int count = sched_getaffinity(0, bytes, set) ? 0 : CPU_COUNT_S(bytes, set);
    CPU_FREE(set);
    if (count) return count;
  }
#endif
  const long count = sysconf(_SC_NPROCESSORS_ONLN);
  return count < 1 ? 1 : (int)count;
}

int os_cpus(void) {
  static _Atomic int cpus;
  if (!cpus) cpus = count_cpus();
  return cpus;
}

void os_call_once(os_once *once, void (*make)(void)) { pthread_once(once, make); }
int os_make_key(os_key *key, void (*destroy)(void *value)) { return pthread_key_create(key, destroy); }
int os_set(os_key key, void *value) { return pthread_setspecific(key, value); }
void *os_get(os_key key) { return pthread_getspecific(key); }

struct start {
  void (*run)(void *argument);
  void *argument;
};

static void *begin(void *memory) {
  const struct start start = *(struct start *)memory;
  free(memory);
  start.run(start.argument);
  return NULL;
}

int os_start_thread(void (*run)(void *argument), void *argument) {
  struct start *start = malloc(sizeof *start);
  if (!start) return 1;
  *start = (struct start){run, argument};
  pthread_attr_t attributes;
  pthread_t thread;
  sigset_t all, before;
  pthread_attr_init(&attributes);
  pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
  pthread_attr_setstacksize(&attributes, STACK_BYTES);
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  const int refused = pthread_create(&thread, &attributes, begin, start);
  pthread_sigmask(SIG_SETMASK, &before, NULL);
  pthread_attr_destroy(&attributes);
  if (refused) free(start);
  return refused;
}

void os_make_mutex(os_mutex *mutex) { pthread_mutex_init(mutex, NULL); }
void os_lock(os_mutex *mutex) { pthread_mutex_lock(mutex); }
void os_unlock(os_mutex *mutex) { pthread_mutex_unlock(mutex); }
void os_make_condition(os_condition *condition) { pthread_cond_init(condition, NULL); }
void os_wait(os_condition *condition, os_mutex *mutex) { pthread_cond_wait(condition, mutex); }
void os_wake_all(os_condition *condition) { pthread_cond_broadcast(condition); }

static int forks;

static void in_child(void) { forks++; }

__attribute__((constructor)) static void watch_forks(void) { pthread_atfork(NULL, NULL, in_child); }

int os_forks(void) { return forks; }
#endif
