/* Thread teams of the drivers. */
#ifndef FA_THREADS_H
#define FA_THREADS_H

#include <stdint.h>

/* The number of threads to use for `work` = max(elements moved, multiply-adds / 4): `requested` without
 * FA_REPRODUCIBLE, or fa_max_threads() for 0, and 1 if the work is too small to share or if this thread is in back-off
 * (see threads.c). */
int threads_for(int requested, int64_t work);

/* Calls run(context, task) for each task < tasks on `threads` threads, which take equal shares of the tasks in their
 * order; on the calling thread alone for 1. */
void share_tasks(int64_t tasks, int threads, void (*run)(void *context, int64_t task), void *context);

/* As share_tasks, but run also gets the thread's index, and threads that are done take tasks from the others' shares:
 * for tasks of different lengths. */
void queue_tasks(int64_t tasks, int threads, void (*run)(void *context, int64_t task, int64_t thread), void *context);

#endif
