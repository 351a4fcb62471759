#ifdef _WIN32
#include <malloc.h>
#include <process.h>
#include <stdlib.h>

#include "engine/os.h"

void *os_allocate(size_t bytes) { return _aligned_malloc(bytes, 64); }
void os_free(void *memory) { _aligned_free(memory); }

int64_t os_nanoseconds(void) {
  LARGE_INTEGER count, rate;
  QueryPerformanceCounter(&count);
  QueryPerformanceFrequency(&rate);
  return (int64_t)((double)count.QuadPart * (1e9 / (double)rate.QuadPart));
}

int os_cpus(void) {
  DWORD_PTR process, system;
  int count = 0;
  if (GetProcessAffinityMask(GetCurrentProcess(), &process, &system))
    for (; process; process &= process - 1) count++;
  return count ? count : 1;
}

static BOOL CALLBACK call(INIT_ONCE *once, void *make, void **context) {
  (void)once, (void)context;
  (*(void (**)(void))make)();
  return TRUE;
}

void os_call_once(os_once *once, void (*make)(void)) { InitOnceExecuteOnce(once, call, &make, NULL); }

int os_make_key(os_key *key, void (*destroy)(void *value)) {
  *key = FlsAlloc((PFLS_CALLBACK_FUNCTION)destroy);
  return *key == FLS_OUT_OF_INDEXES;
}

int os_set(os_key key, void *value) { return !FlsSetValue(key, value); }
void *os_get(os_key key) { return FlsGetValue(key); }

static unsigned __stdcall begin(void *thread) {
  const struct os_thread t = *(struct os_thread *)thread;
  t.run(t.argument);
  return 0;
}

int os_start_thread(struct os_thread *thread) {
  const unsigned reserve = STACK_SIZE_PARAM_IS_A_RESERVATION;
  const uintptr_t started = _beginthreadex(NULL, OS_STACK_BYTES, begin, thread, reserve, NULL);
  if (started) CloseHandle((HANDLE)started);
  return !started;
}

int os_cpu(void) { return -1; } /* Windows wakes a thread on an idle CPU */
void os_leave_cpu(int cpu) { (void)cpu; }
void os_yield(void) { SwitchToThread(); }

void os_make_mutex(os_mutex *mutex) { InitializeSRWLock(mutex); }
void os_lock(os_mutex *mutex) { AcquireSRWLockExclusive(mutex); }
void os_unlock(os_mutex *mutex) { ReleaseSRWLockExclusive(mutex); }
void os_make_condition(os_condition *condition) { InitializeConditionVariable(condition); }
void os_wait(os_condition *condition, os_mutex *mutex) { SleepConditionVariableSRW(condition, mutex, INFINITE, 0); }
void os_wake_all(os_condition *condition) { WakeAllConditionVariable(condition); }

int os_forks(void) { return 0; }
#endif
