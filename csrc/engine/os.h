/* The operating system: threads, locks, memory and time, by POSIX (os_posix.c) or Windows (os_windows.c). */
#ifndef FA_OS_H
#define FA_OS_H

#include <stddef.h>
#include <stdint.h>

#ifdef _WIN32
#define WIN32_LEAN_AND_MEAN
#include <windows.h>
typedef SRWLOCK os_mutex;
typedef CONDITION_VARIABLE os_condition;
typedef INIT_ONCE os_once;
typedef DWORD os_key;
#define OS_ONCE INIT_ONCE_STATIC_INIT
#else
#include <pthread.h>
typedef pthread_mutex_t os_mutex;
typedef pthread_cond_t os_condition;
typedef pthread_once_t os_once;
typedef pthread_key_t os_key;
#define OS_ONCE PTHREAD_ONCE_INIT
#endif

/* The stack of a thread.  Kernels use up to 32 KiB, sanitizers several times as much.  Larger stacks of many threads
 * would use up a limit on the address space. */
#ifndef OS_STACK_BYTES
#define OS_STACK_BYTES (256 << 10)
#endif

/* `bytes` of memory, a multiple of 64, 64-byte aligned, or NULL. */
void *os_allocate(size_t bytes);
void os_free(void *memory);

int64_t os_nanoseconds(void);

/* CPUs on which the process could run at the first call, at least 1. */
int os_cpus(void);

/* Calls make() at the first call for `once`, in whichever thread that is. */
void os_call_once(os_once *once, void (*make)(void));

/* A pointer for each thread, NULL at first.  destroy(value) is called at the end of a thread whose value is not NULL.
 * Both return 0, or another number where the system refuses. */
int os_make_key(os_key *key, void (*destroy)(void *value));
int os_set(os_key key, void *value);
void *os_get(os_key key);

/* What a thread runs. */
struct os_thread {
  void (*run)(void *argument);
  void *argument;
};

/* Starts a thread, which reads `thread` as it begins and is not waited for.  Signals go to other threads; its stack has
 * OS_STACK_BYTES.  Returns 0, or another number where the system refuses. */
int os_start_thread(struct os_thread *thread);

/* The CPU that the calling thread is on, or -1 where that is not known. */
int os_cpu(void);

/* Moves the calling thread to another CPU than `cpu`, if it may run on one. */
void os_leave_cpu(int cpu);

/* Lets other threads that want this CPU run. */
void os_yield(void);

void os_make_mutex(os_mutex *mutex);
void os_lock(os_mutex *mutex);
void os_unlock(os_mutex *mutex);
void os_make_condition(os_condition *condition);
void os_wait(os_condition *condition, os_mutex *mutex);
void os_wake_all(os_condition *condition);

/* The number of forks that led to this process since the library was loaded. */
int os_forks(void);

#endif
