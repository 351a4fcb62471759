/* Features of the CPU and its operating system that the compiler's own detection does not cover. */
#ifndef FA_CPU_H
#define FA_CPU_H

/* NULL where the tile unit of AMX can be used, otherwise why it cannot.  The permission is asked for once a process, at
 * the first call, and holds for all its threads. */
const char *why_no_amx(void);

/* Whether the CPU has the bfloat16 instructions of AArch64; they are looked for on Linux alone. */
int has_neon_bf16(void);

#endif
