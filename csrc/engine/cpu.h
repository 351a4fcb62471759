/* Features of the CPU that its operating system supports, by CPUID and XCR0; zig 0.17 lacks __builtin_cpu_supports. */
#ifndef FA_CPU_H
#define FA_CPU_H

#if defined(__x86_64__)
int cpu_has_avx2(void); /* and FMA */
int cpu_has_avx512(void);
int cpu_has_avx512_bf16(void);
#endif

/* NULL where the tile unit of AMX can be used, otherwise why it cannot.  The permission is asked for once a process, at
 * the first call, and holds for all its threads. */
const char *why_no_amx(void);

/* Whether the CPU has the bfloat16 instructions of AArch64; they are looked for on Linux alone. */
int has_neon_bf16(void);

#endif
