#ifndef _WIN32
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "engine/os.h"

void *os_allocate(size_t bytes) { return aligned_alloc(64, bytes); }
void os_free(void *memory) { free(memory); }

int64_t os_nanoseconds(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (int64_t)time.tv_sec * 1000000000 + time.tv_nsec;
}

#ifdef __linux__
/* The CPUs that the calling thread may run on, in a set of *bytes; NULL where the system does not say. */
static cpu_set_t *own_cpus(size_t *bytes) {
  for (int most = 1024; most <= 1 << 20; most *= 2) { /* a set too small for the machine is refused */
    cpu_set_t *set = CPU_ALLOC(most);
    *bytes = CPU_ALLOC_SIZE(most);
    if (!set || !sched_getaffinity(0, *bytes, set)) return set;
    CPU_FREE(set);
  }
  return NULL;
}

int os_cpu(void) { return sched_getcpu(); }

void os_leave_cpu(int cpu) {
  size_t bytes;
  cpu_set_t *set = own_cpus(&bytes);
  if (set && CPU_ISSET_S(cpu, bytes, set) && CPU_COUNT_S(bytes, set) > 1) {
    CPU_CLR_S(cpu, bytes, set);
    sched_setaffinity(0, bytes, set);
    CPU_SET_S(cpu, bytes, set);
    sched_setaffinity(0, bytes, set);
  }
  if (set) CPU_FREE(set);
}
#else
int os_cpu(void) { return -1; }
void os_leave_cpu(int cpu) { (void)cpu; }
#endif

static int count_cpus(void) {
#ifdef __linux__
  size_t bytes;
  cpu_set_t *set = own_cpus(&bytes);
  const int allowed = set ? CPU_COUNT_S(bytes, set) : 0;
  if (set) CPU_FREE(set);
  if (allowed) return allowed;
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

static void *begin(void *thread) {
  const struct os_thread t = *(struct os_thread *)thread;
  t.run(t.argument);
  return NULL;
}

int os_start_thread(struct os_thread *thread) {
  pthread_attr_t attributes;
  pthread_t started;
  sigset_t all, before;
  if (pthread_attr_init(&attributes)) return 1;
  pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
  pthread_attr_setstacksize(&attributes, OS_STACK_BYTES);
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  const int refused = pthread_create(&started, &attributes, begin, thread);
  pthread_sigmask(SIG_SETMASK, &before, NULL);
  pthread_attr_destroy(&attributes);
  return refused;
}

void os_yield(void) { sched_yield(); }

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
