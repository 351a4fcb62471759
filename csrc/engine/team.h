/* The thread team of a calling thread: workers that wait for its next parallel region. */
#ifndef FA_TEAM_H
#define FA_TEAM_H

/* Calls run(context, part) for each part < threads at once, part 0 on the calling thread.  Each thread that calls this
 * has workers of its own, so a part runs on the same worker as in the region before.  Where the system refuses a
 * thread, the caller runs the parts that have none, one after the other. */
void run_team(int threads, void (*run)(void *context, int part), void *context);

#endif
