/* Threads and memory of the drivers. */
#ifndef FA_THREADS_H
#define FA_THREADS_H

#include <stddef.h>
#include <stdint.h>

/* How many threads a driver uses: `requested`, or OpenMP's own default where that is 0, but one where the work is too
 * small to share, or small while a team of the caller's was late a moment ago, and in a forked child, where libgomp
 * would wait for threads that the fork did not copy.  `work` is in elements moved or in fours of multiply-adds,
 * whichever there are more of. */
int threads_for(int requested, int64_t work);

/* Calls run(context, task) for each task < tasks, on `threads` threads, which take equal shares of them in their order;
 * on the calling thread alone where that is 1. */
void share_tasks(int64_t tasks, int threads, void (*run)(void *context, int64_t task), void *context);

/* The same with run(context, task, thread), thread < threads, for tasks of unlike length: a thread that is done with
 * its share takes what is left of the others'. */
void queue_tasks(int64_t tasks, int threads, void (*run)(void *context, int64_t task, int64_t thread), void *context);

/* Who uses the calling thread's scratch memory: one buffer each. */
enum scratch_user {
  SCRATCH_KERNEL,
  SCRATCH_GRADIENT,
  SCRATCH_UNCARRIED,
  SCRATCH_HIDDEN,
  SCRATCH_SHARES,
  SCRATCH_USERS
};

/* The calling thread's scratch memory of at least `bytes`, 64-byte aligned, or NULL.  Its contents are undefined; the
 * next call for the same user may move it.  It is kept between calls, so that a training step does not ask the
 * operating system for fresh pages each time, and freed with the thread. */
void *scratch(enum scratch_user user, size_t bytes);

/* Ends a use of scratch memory, after each `scratch`: what the thread keeps for all its users together is bounded. */
void release_scratch(enum scratch_user user);

/* `bytes` up to a whole number of cache lines */
static inline size_t aligned(size_t bytes) { return (bytes + 63) & ~(size_t)63; }

#endif
