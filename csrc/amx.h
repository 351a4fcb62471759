#ifndef FA_AMX_H
#define FA_AMX_H

/* NULL where the tile unit can be used, otherwise why it can't.  The permission is asked for once a process, at the
 * first call, and holds for all its threads. */
const char *why_no_amx(void);

#endif
